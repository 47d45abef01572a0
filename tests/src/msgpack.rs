//! JSON values as the MessagePack in which Nomad sends a task's configuration.

use serde_json::Value;

/// Encodes one value.
#[must_use]
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

fn length(out: &mut Vec<u8>, code: u8, length: usize) {
    out.push(code);
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => {
                out.push(0xd3);
                out.extend(whole.to_be_bytes());
            }
            None => {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap_or_default().to_be_bytes());
            }
        },
        Value::String(text) => {
            length(out, 0xdb, text.len());
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            length(out, 0xdd, items.len());
            items.iter().for_each(|item| write(item, out));
        }
        Value::Object(entries) => {
            length(out, 0xdf, entries.len());
            for (key, item) in entries {
                length(out, 0xdb, key.len());
                out.extend(key.as_bytes());
                write(item, out);
            }
        }
    }
}
