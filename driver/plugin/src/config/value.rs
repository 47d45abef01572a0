//! Values that have their own syntax: durations and sizes.

use std::time::Duration;

use super::Problem;
use super::field::{Field, plain, text};
use crate::msgpack::Value;

/// A duration as Go writes it: `30s`, `1h30m`, `1.5h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Period(pub(crate) Duration);

/// Units with their nanoseconds, longer names first where one begins as another.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Period {
    /// Reads the text; `None` for anything that Go would not take, signs included.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self::default());
        }
        let mut rest = text;
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, unit_on) = rest.split_at_checked(end)?;
            let (unit, rest_after) = UNITS.iter().find_map(|(name, nanos)| {
                unit_on.strip_prefix(name).map(|after| (*nanos, after))
            })?;
            nanos = nanos.checked_add(decimal(number, unit)?)?;
            rest = rest_after;
        }
        let nanos = u64::try_from(nanos).ok().filter(|_| !text.is_empty())?;
        Some(Self(Duration::from_nanos(nanos)))
    }
}

/// `number` times `unit`, the fraction cut to whole units of one.
fn decimal(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 15 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = digits(fraction)?.checked_mul(unit)? / scale;
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

impl Field for Period {
    fn kind() -> String {
        "duration".to_owned()
    }

    fn spec(name: &str, required: bool) -> nomad_proto::hclspec::Spec {
        String::spec(name, required)
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        plain(value, key, problems, |value| {
            text(value)
                .and_then(|text| Self::parse(&text))
                .ok_or("must be a duration like \"30s\" or \"1h30m\"".to_owned())
        })
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{:?}\"", self.0))
    }
}

/// A number of bytes: plain, or with k, m, g or t (binary).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

impl Size {
    /// Reads the text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match lower.strip_prefix(digits)? {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return None,
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse::<u64>().ok()?.checked_mul(1 << shift).map(Self)
    }
}

impl Field for Size {
    fn kind() -> String {
        "size".to_owned()
    }

    fn spec(name: &str, required: bool) -> nomad_proto::hclspec::Spec {
        String::spec(name, required)
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        plain(value, key, problems, |value| {
            text(value)
                .and_then(|text| Self::parse(&text))
                .ok_or("must be a size like \"64m\", \"2g\" or a number of bytes".to_owned())
        })
    }

    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_gos() {
        let millis = |text: &str| Period::parse(text).map(|p| p.0.as_millis());
        for (text, expected) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("2m.5s", 120_500),
            ("0", 0),
            ("1000us", 1),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for bad in ["", "30", "s", "-1s", "+1s", "1 s", "1d", "1..5s", ".s", "9999999999999h"] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        let size = |text: &str| Size::parse(text).map(|s| s.0);
        for (text, expected) in
            [("1", 1), ("64m", 64 << 20), ("2G", 2 << 30), ("1kib", 1024), ("3t", 3 << 40)]
        {
            assert_eq!(size(text), Some(expected), "{text}");
        }
        for bad in
            ["", "m", "-1", "1.5g", "1x", "50%", "99999999999999999999", "18446744073709551615t"]
        {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.]{0,6}[a-zµ%]{0,3}[0-9.]{0,6}[a-z]{0,2}") {
            Period::parse(&text);
            Size::parse(&text);
        }

        #[test]
        fn whole_seconds_survive(seconds in 0_u64..1_000_000) {
            let expected = Some(Period(Duration::from_secs(seconds)));
            prop_assert_eq!(Period::parse(&format!("{seconds}s")), expected);
            let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            prop_assert_eq!(Period::parse(&format!("{h}h{m}m{s}s")), expected);
        }
    }
}
