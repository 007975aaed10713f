//! What each dialect that is written in lines has for what.

use super::Dialect;

/// The signs around a marked text.
pub(super) type Marks = (&'static str, &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// The dialect has none: it is text.
    Text,
    /// One backtick on each side; it cannot hold one.
    Backtick,
    /// As many backticks as it takes.
    Backticks,
    /// A tag.
    Tag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// The dialect has none: the lines are text.
    Text,
    /// Three backticks; it cannot hold three.
    Fence,
    /// Three backticks, with the language behind them.
    FenceWithLanguage,
    /// As many backticks as it takes, with the language behind them.
    LongFence,
    /// Tags.
    Tag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heading {
    Text,
    Bold,
    /// Number signs; what is on a deeper level than this is bold.
    Signs(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The address in brackets behind the text.
    Spelled,
    /// `<address|text>`
    Angle,
    /// `[text](address)`
    Brackets,
    /// A tag.
    Tag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Columns under one another.
    Columns,
    /// Columns under one another, as code, so that they stay there.
    Code,
    /// The dialect's own.
    Pipes,
    /// Cells beside one another.
    Cells,
}

/// How a dialect writes what Markdown knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) bold: Marks,
    pub(super) italic: Marks,
    pub(super) strike: Marks,
    pub(super) code: Code,
    pub(super) block: Block,
    pub(super) heading: Heading,
    pub(super) link: Link,
    pub(super) table: Table,
    /// What begins an entry of a list without numbers.
    pub(super) bullet: &'static str,
    /// How far a list in an entry is indented; as far as its text where nothing is said.
    pub(super) indent: Option<usize>,
    /// What begins an entry that is done, and one that is open.
    pub(super) tasks: (&'static str, &'static str),
    /// A line across.
    pub(super) rule: &'static str,
    /// Whether the first quote is a tag rather than signs at its lines' beginnings.
    pub(super) quote_is_tag: bool,
    /// Whether a line ends only where an empty one follows.
    pub(super) lines_are_paragraphs: bool,
    /// Whether marks hold for one line at most.
    pub(super) marks_end_at_line: bool,
}

const PLAIN: Style = Style {
    bold: ("", ""),
    italic: ("", ""),
    strike: ("", ""),
    code: Code::Text,
    block: Block::Text,
    heading: Heading::Text,
    link: Link::Spelled,
    table: Table::Columns,
    bullet: "- ",
    indent: None,
    tasks: ("[x] ", "[ ] "),
    rule: "---",
    quote_is_tag: false,
    lines_are_paragraphs: false,
    marks_end_at_line: false,
};

const CHAT: Style = Style {
    bold: ("*", "*"),
    italic: ("_", "_"),
    strike: ("~", "~"),
    code: Code::Backtick,
    block: Block::Fence,
    heading: Heading::Bold,
    table: Table::Code,
    tasks: ("☑ ", "☐ "),
    rule: "──────────",
    marks_end_at_line: true,
    ..PLAIN
};

const MARKDOWN: Style = Style {
    bold: ("**", "**"),
    italic: ("*", "*"),
    strike: ("~~", "~~"),
    code: Code::Backticks,
    link: Link::Brackets,
    marks_end_at_line: false,
    ..CHAT
};

impl Style {
    pub(super) fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Plain | Dialect::MatrixHtml | Dialect::EmailHtml => PLAIN,
            Dialect::SlackMrkdwn => Self { link: Link::Angle, bullet: "• ", ..CHAT },
            Dialect::WhatsApp => CHAT,
            Dialect::GoogleChat => Self { link: Link::Angle, indent: Some(4), ..CHAT },
            Dialect::TelegramHtml => Self {
                bold: ("<b>", "</b>"),
                italic: ("<i>", "</i>"),
                strike: ("<s>", "</s>"),
                code: Code::Tag,
                block: Block::Tag,
                link: Link::Tag,
                bullet: "• ",
                quote_is_tag: true,
                marks_end_at_line: false,
                ..CHAT
            },
            Dialect::PushoverHtml => Self {
                bold: ("<b>", "</b>"),
                italic: ("<i>", "</i>"),
                strike: ("", ""),
                code: Code::Text,
                block: Block::Text,
                link: Link::Tag,
                bullet: "• ",
                marks_end_at_line: false,
                ..CHAT
            },
            Dialect::Mattermost => Self {
                block: Block::LongFence,
                heading: Heading::Signs(6),
                table: Table::Pipes,
                tasks: ("[x] ", "[ ] "),
                rule: "***",
                ..MARKDOWN
            },
            Dialect::Discord => Self { block: Block::FenceWithLanguage, heading: Heading::Signs(3), ..MARKDOWN },
            Dialect::TeamsCard => Self {
                strike: ("", ""),
                code: Code::Text,
                block: Block::Text,
                table: Table::Cells,
                lines_are_paragraphs: true,
                marks_end_at_line: true,
                ..MARKDOWN
            },
        }
    }
}
