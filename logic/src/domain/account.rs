//! Accounts: what may be registered, and which names are the same name.

use corecast_proto::limits;
use corecast_proto::logic::Refusal;
use corecast_proto::refusal::Code;
use unicode_normalization::UnicodeNormalization;

/// What a login says when email and password do not match; it does not tell which is wrong.
pub const LOGIN_FAILED: &str = "email password no match";

/// A registration that keeps the rules.
#[derive(Clone, PartialEq, Eq)]
pub struct Registration {
    /// NFC, otherwise as typed.
    pub username: String,
    /// Decides uniqueness.
    pub username_folded: String,
    /// As typed.
    pub email: String,
    /// Decides uniqueness.
    pub email_folded: String,
}

/// The form in which names and emails are compared: NFC, Unicode lower case, NFC again
/// because lowering may decompose (`İ`).
pub fn fold(text: &str) -> String {
    text.nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// Checks a registration.
///
/// # Errors
/// `BAD_INPUT` with the field and its limit.
pub fn registration(username: &str, email: &str, password: &str) -> Result<Registration, Refusal> {
    let username: String = username.nfc().collect();
    check_username(&username)?;
    check_email(email)?;
    check_password(password)?;
    Ok(Registration {
        username_folded: fold(&username),
        username,
        email: email.to_owned(),
        email_folded: fold(email),
    })
}

/// Checks the input of a login and answers the folded email. An email that nobody could
/// have registered is no error here: it fails as a wrong one does.
///
/// # Errors
/// `BAD_INPUT` with the field and its limit.
pub fn login(email: &str, password: &str) -> Result<String, Refusal> {
    if email.is_empty() || email.len() > limits::EMAIL_BYTES {
        return Err(bad(format!("email must have 1 to {} bytes, has {}", limits::EMAIL_BYTES, email.len())));
    }
    check_password(password)?;
    Ok(fold(email))
}

/// Checks a username that is already NFC.
///
/// # Errors
/// `BAD_INPUT` with the limit.
pub fn check_username(username: &str) -> Result<(), Refusal> {
    let max = limits::USERNAME_CHARS;
    let chars = username.chars().count();
    if chars == 0 || chars > max {
        return Err(bad(format!("username must have 1 to {max} characters, has {chars}")));
    }
    if username.chars().any(char::is_control) {
        return Err(bad("username must not hold control characters"));
    }
    if username.trim().is_empty() {
        return Err(bad("username must not be blank"));
    }
    Ok(())
}

/// The shape only: whether a mailbox exists is shown by mail, not by grammar.
fn check_email(email: &str) -> Result<(), Refusal> {
    let max = limits::EMAIL_BYTES;
    if email.is_empty() || email.len() > max {
        return Err(bad(format!("email must have 1 to {max} bytes, has {}", email.len())));
    }
    if email.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(bad("email must not hold blanks or control characters"));
    }
    let well_formed = email
        .split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    if well_formed { Ok(()) } else { Err(bad("email must look like name@domain")) }
}

fn check_password(password: &str) -> Result<(), Refusal> {
    let max = limits::PASSWORD_BYTES;
    if password.is_empty() || password.len() > max {
        return Err(bad(format!("password must have 1 to {max} bytes, has {}", password.len())));
    }
    Ok(())
}

fn bad(message: impl Into<String>) -> Refusal {
    Code::BadInput.with(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_of(username: &str, email: &str, password: &str) -> String {
        registration(username, email, password).map(|_| ()).expect_err("must be refused").message
    }

    #[test]
    fn names_that_differ_in_case_or_composition_are_the_same() {
        for (a, b) in [
            ("Ann", "aNN"),
            ("ZOË", "zoe\u{308}"),
            ("ÅNGSTRÖM", "a\u{30a}ngstro\u{308}m"),
            ("ΟΔΟΣ", "οδος"),
            ("ЮЛИЯ", "юлия"),
        ] {
            assert_eq!(fold(a), fold(b), "{a} {b}");
        }
        assert_ne!(fold("ann"), fold("anna"));
    }

    #[test]
    fn folding_twice_changes_nothing() {
        for text in ["İstanbul", "ΟΔΟΣ", "ǅ", "ﬀ", "a\u{301}\u{323}"] {
            assert_eq!(fold(&fold(text)), fold(text), "{text}");
        }
    }

    #[test]
    fn a_username_is_counted_in_characters_after_composition() {
        let longest = "e\u{301}".repeat(limits::USERNAME_CHARS);
        assert!(registration(&longest, "a@b", "p").is_ok());
        assert!(message_of(&format!("{longest}x"), "a@b", "p").contains("32"));
        assert!(message_of("", "a@b", "p").contains("username"));
    }

    #[test]
    fn blank_and_control_names_are_refused() {
        assert!(message_of(" \u{2003}", "a@b", "p").contains("blank"));
        for name in ["a\0", "a\nb", "\u{7f}", "\u{85}x"] {
            assert!(message_of(name, "a@b", "p").contains("control"), "{name:?}");
        }
        assert!(registration("two words", "a@b", "p").is_ok());
    }

    #[test]
    fn an_email_has_one_at_sign_between_two_parts() {
        for email in ["a@b", "first.last+tag@mail.example", "ö@ü"] {
            assert!(registration("ann", email, "p").is_ok(), "{email}");
        }
        for email in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\n"] {
            assert!(message_of("ann", email, "p").contains("email"), "{email:?}");
        }
        let longest = format!("{}@b", "a".repeat(limits::EMAIL_BYTES - 2));
        assert!(registration("ann", &longest, "p").is_ok());
        assert!(message_of("ann", &format!("a{longest}"), "p").contains("254"));
    }

    #[test]
    fn a_password_is_counted_in_bytes() {
        let longest = "é".repeat(limits::PASSWORD_BYTES / 2);
        assert!(registration("ann", "a@b", &longest).is_ok());
        assert!(message_of("ann", "a@b", &format!("{longest}x")).contains("1024"));
        assert!(message_of("ann", "a@b", "").contains("password"));
    }
}
