//! Tokens as headers carry them.

use conductor_core::Secret;
use http::HeaderValue;

/// The names of schemes that people copy along with a token.
const SCHEMES: &[&str] = &["Bearer ", "Bot ", "Basic ", "Token "];

/// The value of a header that carries a token behind the name of a scheme, marked so that no log shows it. The reason why
/// a text is no token repeats nothing of it.
pub(crate) fn header(scheme: &str, token: &Secret) -> Result<HeaderValue, &'static str> {
    let token = token.expose();
    if token.is_empty() {
        return Err("is empty; expected a token");
    }
    if SCHEMES.iter().any(|scheme| token.starts_with(scheme)) {
        return Err("begins with the name of a scheme; expected the token alone");
    }
    if token.starts_with("http://") || token.starts_with("https://") {
        return Err("is an address; expected a token (the address of a webhook is a setting of its own)");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds a space, a line break or a character outside ASCII, which no token has");
    }
    let mut value = HeaderValue::try_from(format!("{scheme} {token}")).map_err(|_| "cannot stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_behind_its_scheme_and_is_never_shown() {
        let value = header("Bearer", &Secret::new("T0P-S3CRET")).expect("a token");
        assert_eq!(value, "Bearer T0P-S3CRET");
        assert!(!format!("{value:?}").contains("T0P"), "{value:?}");
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        for text in ["", "Bearer T0P", "Bot T0P", "https://T0P.example", "T0P S3CRET", "T0P\n", "T0P\u{e4}", "T0P\0"] {
            let reason = header("Bearer", &Secret::new(text)).expect_err(text);
            assert!(!reason.contains("T0P"), "{reason}");
        }
    }
}
