//! Signal names as people write them: `SIGHUP`, `hup`, `SIGRTMIN+3`, `15`.

use std::str::FromStr;

use crate::startup::sys;

/// Number of the signal, 1 to 64; `None` for an unknown name.
pub(crate) fn parse(text: &str) -> Option<u8> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<u8>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = realtime(name) {
        return Some(number);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    let signal = nix::sys::signal::Signal::from_str(&format!("SIG{name}")).ok()?;
    u8::try_from(signal as i32).ok()
}

/// `RTMIN+n` and `RTMAX-n`, counted as the C library does.
fn realtime(name: &str) -> Option<u8> {
    let (first, last) = (sys::first_realtime_signal(), sys::last_realtime_signal());
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        first.checked_add(offset(rest, '+')?)?
    } else {
        last.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (first..=last).contains(&number).then_some(number)
}

fn offset(rest: &str, sign: char) -> Option<u8> {
    match rest.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        None if rest.is_empty() => Some(0),
        _ => None,
    }
}

/// What asks a payload to end when the job names no signal: systemd's own for a booted image
/// (systemd(1): SIGRTMIN+3 halts), SIGTERM for a command.
pub(crate) fn default_stop(boot: bool) -> u8 {
    if boot {
        sys::first_realtime_signal().saturating_add(3)
    } else {
        u8::try_from(libc::SIGTERM).unwrap_or(15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_spelling() {
        for (text, number) in [
            ("SIGHUP", 1),
            ("hup", 1),
            ("SigUsr1", 10),
            ("TERM", 15),
            (" SIGKILL ", 9),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("SIGRTMAX", 64),
            ("15", 15),
            ("64", 64),
            ("SIGIOT", 6),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for bad in [
            "",
            "SIG",
            "SIGFOO",
            "0",
            "65",
            "-1",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN++1",
            "RTMIN+ 1",
            "RTMAX-",
            "SIGSIGHUP",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn booted_images_get_systemds_own_signal() {
        assert_eq!(default_stop(true), 37);
        assert_eq!(default_stop(false), 15);
    }
}
