//! Text that was typed is the text that is shown.

use proptest::prelude::*;

use super::super::properties;
use super::soup;

proptest! {
    #[test]
    fn every_dialect_shows_what_was_typed(text in soup()) {
        properties::typed_text_is_shown(&text);
    }

    #[test]
    fn no_bare_mark_opens(text in soup()) {
        properties::no_bare_mark_opens(&text);
    }
}
