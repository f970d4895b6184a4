//! The body of the fuzz target, here so that tests run the same code on the corpus.

use crate::{Interpreter, class_of_tag, mask_command_line, mask_secrets, redact, rows_affected, split};

/// Whatever the bytes, every entry point answers, and the promises that hold for all texts hold. Panics if one does
/// not.
pub fn fuzz_sql(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let redacted = redact(&text);
    assert_eq!(redact(&redacted), redacted, "idempotent: {text:?}");
    for range in split(&text) {
        assert!(
            text.get(range).is_some_and(|part| !part.trim_ascii().is_empty()),
            "an empty statement"
        );
    }
    mask_secrets(&text);
    let mut interpreter = Interpreter::new(4);
    let statement = interpreter.interpret(data);
    assert_eq!(&*statement.redacted, redacted.as_str(), "two redactions");
    assert_eq!(
        interpreter.interpret(data),
        statement,
        "another meaning at the second time"
    );
    let backslash = crate::Backslash::Unknown;
    if statement.effect.settings {
        crate::changes(&text, backslash);
    }
    crate::comment_pairs(&text);
    mask_command_line(&[text.to_string(), "-c".into(), text.to_string()]);
    class_of_tag(&text);
    rows_affected(&text);
}
