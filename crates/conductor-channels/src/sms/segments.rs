//! How many segments a text takes: what is sent over the air and paid for.
//!
//! <https://www.twilio.com/docs/glossary/what-is-gsm-7-character-encoding>

/// GSM 03.38's basic characters.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿\
                     abcdefghijklmnopqrstuvwxyzäöñüà";
/// Those that take two places, because an escape goes before them.
const EXTENDED: &str = "\u{c}^{}\\[~]|€";

/// How a text's characters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Seven bits each: 160 in a message, 153 in a segment of several.
    Gsm7,
    /// UTF-16: 70 in a message, 67 in a segment of several.
    Ucs2,
}

impl Encoding {
    /// Its usual name.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gsm7 => "GSM-7",
            Self::Ucs2 => "UCS-2",
        }
    }
}

/// What a text takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segments {
    pub(super) encoding: Encoding,
    /// At least 1.
    pub(super) count: usize,
}

/// Counts the segments. One character outside GSM-7 makes the whole text UCS-2.
pub(super) fn segments(text: &str) -> Segments {
    let septets: Option<Vec<usize>> = text.chars().map(septets).collect();
    match septets {
        Some(sizes) => Segments { encoding: Encoding::Gsm7, count: count(sizes, 160, 153) },
        None => Segments { encoding: Encoding::Ucs2, count: count(text.chars().map(char::len_utf16), 70, 67) },
    }
}

fn septets(letter: char) -> Option<usize> {
    if BASIC.contains(letter) { Some(1) } else { EXTENDED.contains(letter).then_some(2) }
}

/// A character of two places is not cut in two.
fn count(sizes: impl IntoIterator<Item = usize>, single: usize, joined: usize) -> usize {
    let (mut total, mut segments, mut used) = (0, 1, 0);
    for size in sizes {
        total += size;
        if used + size > joined {
            segments += 1;
            used = 0;
        }
        used += size;
    }
    if total <= single { 1 } else { segments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::spec;

    /// The texts of the vectors, which tell only their names.
    fn text(name: &str) -> String {
        let of = |letter: &str, count| letter.repeat(count);
        match name {
            "empty" => String::new(),
            "gsm160" => of("a", 160),
            "gsm161" => of("a", 161),
            "gsm306" => of("a", 306),
            "gsm307" => of("a", 307),
            "gsm459" => of("a", 459),
            "gsm460" => of("a", 460),
            "ext80 (euro x80)" => of("€", 80),
            "ext81 (euro x81)" => of("€", 81),
            "ext at boundary (a x152 + euro + a x10)" => of("a", 152) + "€" + &of("a", 10),
            "ucs70" => of("ж", 70),
            "ucs71" => of("ж", 71),
            "ucs134" => of("ж", 134),
            "ucs135" => of("ж", 135),
            "emoji35" => of("😀", 35),
            "emoji36" => of("😀", 36),
            "zwj family x1" => "👨\u{200d}👩\u{200d}👧".into(),
            "one curly quote in 100" => of("a", 99) + "\u{2019}",
            "backtick" => "`".into(),
            "newline160" => of("a", 159) + "\n",
            "at sign" => "@".into(),
            "e-acute 160" => of("é", 160),
            "c-cedilla lower" => "ç".into(),
            "C-cedilla upper" => "Ç".into(),
            other => panic!("no text for {other}"),
        }
    }

    #[test]
    fn segments_are_counted_as_twilio_counts_them() {
        let Some(vectors) = spec("signature_vectors.json") else { return };
        let vectors = vectors["sms_segments"]["vectors"].as_array().expect("vectors");
        assert_eq!(vectors.len(), 24);
        for vector in vectors {
            let name = vector["name"].as_str().expect("a name");
            let found = segments(&text(name));
            let told = (found.encoding.as_str(), u64::try_from(found.count).unwrap());
            assert_eq!(told, (vector["encoding"].as_str().unwrap(), vector["segments"].as_u64().unwrap()), "{name}");
        }
    }

    #[test]
    fn the_alphabet_is_whole() {
        // 128 places, of which one is the escape, and the nine characters and a form feed behind it.
        assert_eq!((BASIC.chars().count(), EXTENDED.chars().count()), (127, 10));
    }

    #[test]
    fn a_character_of_two_places_is_not_cut() {
        let edge = "a".repeat(152) + "€" + &"a".repeat(152);
        assert_eq!(segments(&edge).count, 3, "the euro sign leaves the last place of the first segment free");
    }
}
