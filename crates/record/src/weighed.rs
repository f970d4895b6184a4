//! What many events share, with its size.
//!
//! Owns that the size is worked out once: whoever adds up what a store's tail takes would walk thousands of messages
//! each time.

use std::ops::Deref;

use prost::Message;

/// A message, and how many bytes it takes encoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weighed<T> {
    message: T,
    encoded_len: usize,
}

impl<T> Weighed<T> {
    /// Bytes of the message, encoded.
    pub fn encoded_len(&self) -> usize {
        self.encoded_len
    }
}

impl<T: Message> From<T> for Weighed<T> {
    fn from(message: T) -> Self {
        Self {
            encoded_len: message.encoded_len(),
            message,
        }
    }
}

impl<T> Deref for Weighed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}
