//! A picture of the terminal, for README: what a demo printed, drawn as SVG.
//!
//! For `cargo rig demo --picture FILE`. The text is a part of the output of a demo that ran now; nothing
//! in it is written by hand.

use anyhow::{Result, bail};
use std::fmt::Write as _;

/// The commands that are shown, by their first words, each once.
const SHOWN: [&str; 6] = [
    "$ nomad job run /root/hello.nomad.hcl",
    "$ nomad alloc logs ",
    "$ nomad job run /root/debian.nomad.hcl",
    "$ machinectl list",
    "$ grep -E ^(Name|Uid",
    "$ stat -c host:   uid",
];
/// Longest part of an output, in lines.
const LINES: usize = 12;
/// Columns of the terminal.
const COLUMNS: usize = 100;
const LINE_HEIGHT: usize = 17;
/// Width of a character of the font, in tenths.
const CHARACTER: usize = 78;
const MARGIN: usize = 16;

/// Draws the chosen commands of a demo's output with what they printed.
///
/// # Errors
/// When one of them is not in it.
pub fn draw(output: &str) -> Result<String> {
    let mut lines = Vec::new();
    for shown in SHOWN {
        let mut rest = output.lines().skip_while(|line| !line.starts_with(shown));
        let Some(command) = rest.next() else { bail!("the demo has not run `{shown}`") };
        lines.push(command);
        let mut answer = Vec::new();
        for line in rest.take_while(|line| !line.starts_with("$ ") && !line.starts_with("── "))
        {
            if !line.trim().is_empty() {
                answer.push(line);
            }
            // The demo's own conclusion is the last that belongs to the command.
            if line.starts_with('→') {
                break;
            }
        }
        // The end of a long output has its result.
        lines.extend(answer.iter().skip(answer.len().saturating_sub(LINES)));
        lines.push("");
    }
    lines.pop();
    svg(&lines)
}

fn svg(lines: &[&str]) -> Result<String> {
    let width = COLUMNS * CHARACTER / 10 + 2 * MARGIN;
    let height = lines.len() * LINE_HEIGHT + 2 * MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#15191e\"/>\n\
         <g font-family=\"ui-monospace, DejaVu Sans Mono, monospace\" font-size=\"13\" \
         fill=\"#d6dbe1\" xml:space=\"preserve\">\n"
    );
    for (number, line) in lines.iter().enumerate() {
        if line.is_empty() {
            continue;
        }
        let y = MARGIN + (number + 1) * LINE_HEIGHT - 4;
        let fill = match line.chars().next() {
            Some('$') => " fill=\"#7fd0a0\"",
            Some('→') => " fill=\"#e8c67a\"",
            _ => "",
        };
        writeln!(text, "<text x=\"{MARGIN}\" y=\"{y}\"{fill}>{}</text>", escape(line))?;
    }
    text.push_str("</g>\n</svg>\n");
    Ok(text)
}

/// One line, as far as the terminal is wide.
fn escape(line: &str) -> String {
    let mut out = String::new();
    for character in line.chars().take(COLUMNS) {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' => out.push_str("    "),
            control if control.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_the_output_and_no_markup_of_it() {
        let output: String =
            SHOWN.iter().map(|command| format!("{command}x\n<b> & {command}\n\n")).collect();
        let picture = draw(&output).unwrap();
        assert!(picture.contains("&lt;b&gt; &amp; $ machinectl list"), "{picture}");
        assert!(draw("$ nomad job run\n").is_err());
    }
}
