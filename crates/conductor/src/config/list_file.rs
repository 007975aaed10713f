//! The three files: which there are, and how they may be written.

use std::path::{Path, PathBuf};

use jsonc_parser::ParseOptions;

/// The most that one of the three files may hold, in bytes.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Which of the three files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFile {
    /// `tenants.json`
    Tenants,
    /// `channels.json`
    Channels,
    /// `plugins.json`
    Plugins,
}

impl ListFile {
    /// The member that holds the list where the file is an object.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Channels => "channels",
            Self::Plugins => "plugins",
        }
    }

    /// The file's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants.json",
            Self::Channels => "channels.json",
            Self::Plugins => "plugins.json",
        }
    }

    /// Where it lies.
    pub fn path(self, folder: &Path) -> PathBuf {
        folder.join(self.name())
    }
}

/// What the three files may be written in: JSON with comments and trailing commas, and nothing looser.
pub(super) fn options() -> ParseOptions {
    ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}
