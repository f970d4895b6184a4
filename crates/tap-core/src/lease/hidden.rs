//! Whether a connection is encrypted and its plaintext not seen: what passes is no statement then, and proves nothing.

use ebpf_abi::{Channel, Transfer};

/// What was agreed at the beginning of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hidden {
    is_asked: bool,
    is_hidden: bool,
}

impl Hidden {
    /// The client's end sent something: its first bytes may ask for encryption ("Message Formats": SSLRequest,
    /// GSSENCRequest).
    pub(super) fn asks(&mut self, transfer: &Transfer) {
        const SSL: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
        const GSS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
        let is_request = transfer.length == 8
            && transfer.channel == Channel::Socket as u8
            && [SSL, GSS]
                .iter()
                .any(|request| transfer.front.starts_with(request));
        // A client that was refused one may ask for the other, or begin in the clear.
        self.is_asked |= is_request;
    }

    /// The server's end sent something: one byte answers the request.
    pub(super) fn answers(&mut self, transfer: &Transfer) {
        if transfer.length == 0 || !self.is_asked {
            return;
        }
        self.is_asked = false;
        let [answer, ..] = transfer.front;
        self.is_hidden = matches!(answer, b'S' | b'G') && transfer.channel == Channel::Socket as u8;
    }

    /// The plaintext is seen in the encryption's own functions.
    pub(super) fn is_seen(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_hidden(self) -> bool {
        self.is_hidden
    }
}
