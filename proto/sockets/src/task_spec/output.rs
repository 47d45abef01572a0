//! Where a task's output goes, and the fields that its journal lines carry.

use bincode::{Decode, Encode};

use crate::limits;
use crate::name::text_name;

fn check_label_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 {
        return Err("1 to 64 bytes");
    }
    if !text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
        return Err("capital letters, digits and _ only (systemd.journal-fields(7))");
    }
    if !text.as_bytes().first().is_some_and(u8::is_ascii_uppercase) {
        return Err("must begin with a letter");
    }
    const RESERVED: [&str; 10] = [
        "NOMAD_",
        "NSPAWN_",
        "MESSAGE",
        "PRIORITY",
        "CODE_",
        "SYSLOG_",
        "UNIT",
        "USER_",
        "COREDUMP_",
        // journalctl -u takes root's lines with OBJECT_SYSTEMD_UNIT= for the unit's.
        "OBJECT_",
    ];
    if RESERVED.iter().any(|prefix| text.starts_with(prefix)) {
        return Err("must not begin as a field of systemd's or of this driver's does");
    }
    Ok(())
}

fn check_label_value(text: &str) -> Result<(), &'static str> {
    if text.len() > limits::VALUE_MAX {
        return Err("at most 255 bytes");
    }
    // PID 1 writes a field without quotes: when it reads its units again, each word is one of its
    // own.
    if text.split(' ').skip(1).any(|word| word.contains('=')) {
        return Err("no = behind a blank");
    }
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b" ._:/@+,=-".contains(&b)) {
        Ok(())
    } else {
        Err("letters, digits, blanks and ._:/@+,=- only")
    }
}

text_name!(
    /// Name of a journal field.
    LabelName, "label name", check_label_name
);
text_name!(
    /// Value of a journal field.
    LabelValue, "label value", check_label_value
);

/// A journal field on every line of the task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Label {
    /// Its name.
    pub name: LabelName,
    /// Its value.
    pub value: LabelValue,
}

impl Label {
    /// Bytes of the field `NAME=VALUE`.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.name.as_str().len() + 1 + self.value.as_str().len()
    }
}

/// Where the two output streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Logs {
    /// To Nomad's FIFOs `.<task>.stdout.fifo` and `.<task>.stderr.fifo` in the log directory.
    Fifos,
    /// Nowhere: to the null device.
    Discard,
    /// To the host's journal: standard output with priority info, standard error with err.
    Journal,
    /// To the host's journal as with [`Self::Journal`], and to Nomad's FIFOs.
    Both,
    /// The booted container's own journal to Nomad's FIFOs; its console goes to the host's journal.
    /// systemd-journald in the container forwards it in the syslog protocol (journald.conf(5)).
    Container {
        /// Lines at or above this priority go to standard error (syslog(3): 0 to 7).
        priority: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_label_is_another_field() {
        for good in ["", "blue, 50:50 @home", "a=b=c", "a=b c", " x", "x "] {
            assert!(LabelValue::new(good).is_ok(), "{good:?}");
        }
        for bad in
            ["x OBJECT_SYSTEMD_UNIT=ssh.service", " NOMAD_TASK_NAME=y", "a  b=c", "a\tb", "é"]
        {
            assert!(LabelValue::new(bad).is_err(), "{bad:?}");
        }
    }
}
