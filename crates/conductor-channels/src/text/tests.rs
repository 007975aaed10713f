use std::time::{Duration, Instant};

use conductor_core::Format::{Markdown, Text};
use proptest::prelude::*;

use super::*;

/// Cuts at so many characters.
fn cut(body: &str, format: Format, max: usize) -> Vec<String> {
    split(body, format, |text, _| text.chars().count() <= max)
}

/// Whether a part ends within a code fence: written apart from the code under test.
fn ends_in_fence(text: &str) -> bool {
    let mut open: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim_start_matches(' ');
        let mark = if trimmed.starts_with('~') { '~' } else { '`' };
        let row: String = trimmed.chars().take_while(|letter| *letter == mark).collect();
        let behind = &trimmed[row.len()..];
        if row.len() < 3 || line.len() - trimmed.len() > 3 {
            continue;
        }
        open = match open {
            None if row.len() > fence::MARKS_MAX || (mark == '`' && behind.contains('`')) => None,
            None => Some(row),
            Some(opened) if row.starts_with(&opened) && behind.trim().is_empty() => None,
            opened => opened,
        };
    }
    open.is_some()
}

#[test]
fn what_fits_stays_whole() {
    assert_eq!(cut("one\n\ntwo", Text, 8), ["one\n\ntwo"]);
    assert_eq!(cut("", Text, 8), [""]);
}

#[test]
fn the_best_boundary_in_the_second_half_is_taken() {
    assert_eq!(cut("aaaa bbbb\n\ncccc\ndddd eeee", Text, 18), ["aaaa bbbb", "cccc\ndddd eeee"], "a paragraph");
    assert_eq!(cut("aaaa bbbb\ncccc. dddd eeee", Text, 18), ["aaaa bbbb", "cccc. dddd eeee"], "a line");
    assert_eq!(cut("aaaa. Bbbb cccc dddd", Text, 10), ["aaaa.", "Bbbb cccc", "dddd"], "a sentence");
    assert_eq!(cut("aaaa bbbb cccc", Text, 10), ["aaaa bbbb", "cccc"], "a word");
    assert_eq!(cut("aaaaaaaaaaaa", Text, 5), ["aaaaa", "aaaaa", "aa"]);
    assert_eq!(cut("a\n\nbbbb bbbb bbbb", Text, 12), ["a\n\nbbbb bbbb", "bbbb"], "an early paragraph is passed over");
    assert_eq!(cut("你好。世界很大", Text, 5), ["你好。", "世界很大"], "a sentence without a blank behind it");
}

#[test]
fn a_grapheme_is_cut_only_if_it_does_not_fit_alone() {
    let family = "👨‍👩‍👧";
    assert_eq!(cut(&family.repeat(3), Text, 12), [family.repeat(2), family.to_owned()]);
    assert_eq!(cut(family, Text, 2).concat(), family);
    assert_eq!(cut("e\u{301}e\u{301}", Text, 3), ["e\u{301}", "e\u{301}"]);
    let marks = format!("e{}", "\u{301}".repeat(10));
    let parts = cut(&marks, Text, 4);
    assert_eq!((parts.len(), parts.concat()), (3, marks));
}

#[test]
fn the_next_lines_indentation_is_kept() {
    assert_eq!(cut("if so:\n    do it\n    again", Text, 17), ["if so:\n    do it", "    again"]);
}

#[test]
fn a_fence_is_closed_at_a_cut_and_opened_again() {
    let body = "Look:\n```rust\nlet a = 1;\nlet b = 2;\nlet c = 3;\n```\nThat was it.";
    assert_eq!(
        cut(body, Markdown, 40),
        ["Look:\n```rust\nlet a = 1;\nlet b = 2;\n```", "```rust\nlet c = 3;\n```\nThat was it.",]
    );
    assert_eq!(cut(body, Text, 40), ["Look:\n```rust\nlet a = 1;\nlet b = 2;", "let c = 3;\n```\nThat was it."]);
}

#[test]
fn no_part_has_an_empty_fence_at_its_beginning_or_end() {
    let body = "Look at this, please:\n~~~~ c\nint a;\nint b;\n~~~~\nDone and dusted.";
    let parts = cut(body, Markdown, 32);
    assert_eq!(parts, ["Look at this, please:", "~~~~ c\nint a;\nint b;\n~~~~", "Done and dusted."]);
    let body = "```\naaaa aaaa\nbbbb bbbb\n```\ncccc cccc cccc";
    assert_eq!(cut(body, Markdown, 27), ["```\naaaa aaaa\nbbbb bbbb\n```", "cccc cccc cccc"]);
}

#[test]
fn an_open_fence_is_closed_at_the_end() {
    assert_eq!(closed("a\n```\nb", Markdown), "a\n```\nb\n```");
    assert_eq!(closed("a\n```\nb", Text), "a\n```\nb");
    assert_eq!(closed("a\n```\nb\n```", Markdown), "a\n```\nb\n```");
}

#[test]
fn a_mark_in_a_line_becomes_no_fence() {
    for part in cut("aaaa bbbb cccc ~~~ dddd eeee ffff", Markdown, 16) {
        assert!(!part.starts_with("~~~") && !part.contains('\n'), "{part}");
    }
}

#[test]
fn what_cannot_fit_is_left_in_one_piece() {
    assert_eq!(cut("hello", Text, 0), ["hello"]);
    assert_eq!(split("hello", Text, |_, part| part > 0), ["hello"]);
}

#[test]
fn a_part_is_asked_for_by_its_number() {
    let parts = split("aaaa bbbb cccc dddd", Text, |text, part| text.len() <= if part == 0 { 4 } else { 9 });
    assert_eq!(parts, ["aaaa", "bbbb cccc", "dddd"]);
}

#[test]
fn any_64_kib_are_cut_quickly() {
    const BYTES: usize = 64 * 1024;
    for unit in ["a", "\u{301}", "```\n", "`", "~", " ", "\n", "a\n\n", "🇩🇪", "👩\u{200d}", "```rust\nx\n", "क्", "a "]
    {
        for format in [Text, Markdown] {
            let body = unit.repeat(BYTES / unit.len());
            let (mut asked, begun) = (0, Instant::now());
            let parts = split(&body, format, |text, _| {
                asked += 1;
                text.chars().count() <= 2_000
            });
            assert!(begun.elapsed() < Duration::from_secs(5), "{unit:?}");
            assert!(asked <= 30 * (parts.len() + 2), "{unit:?}: {asked} for {} parts", parts.len());
            for part in &parts {
                assert!(part.chars().count() <= 2_000 && !(format == Markdown && ends_in_fence(part)), "{unit:?}");
            }
        }
    }
}

fn letters(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_whitespace()).collect()
}

proptest! {
    #[test]
    fn nothing_of_a_plain_text_is_lost_or_doubled(body in r"[a-c .,\nä👨👩\u{200d}\u{301}]{0,400}", max in 1..60usize) {
        let parts = cut(&body, Text, max);
        prop_assert!(parts.iter().all(|part| part.chars().count() <= max));
        prop_assert_eq!(letters(&parts.concat()), letters(&body));
    }

    #[test]
    fn no_part_of_a_markdown_text_ends_in_a_fence(
        body in r"(([a-c]{1,9}( [a-c]{1,9}){0,5}|(```|~~~~|`````)[0-9]{0,3}| {0,5}```| *)\n){0,40}", max in 24..90usize
    ) {
        let parts = cut(&body, Markdown, max);
        for part in &parts {
            prop_assert!(part.chars().count() <= max, "{part:?}");
            prop_assert!(!ends_in_fence(part), "{part:?}");
        }
        let only = |text: &str| text.chars().filter(char::is_ascii_alphabetic).collect::<String>();
        prop_assert_eq!(only(&parts.concat()), only(&body));
    }

    #[test]
    fn a_counter_that_is_not_monotonous_ends_too(body: String, seed in 2..9usize) {
        let fits = |text: &str, _| !text.len().is_multiple_of(seed) && text.len() < 40;
        let parts = split(&body, Markdown, fits);
        let marks = |text: &str| letters(text).replace(['`', '~'], "");
        prop_assert_eq!(marks(&parts.concat()), marks(&body));
    }
}
