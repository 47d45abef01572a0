//! Manual pages made of the tables of docs/POLICY.md and docs/CONFIG.md, so that they cannot lack a key.
//!
//! In mdoc(7). It trusts the form of the two documents, which tests of their crates compare with the
//! code, and fails where a table is not found.

use anyhow::{Result, bail};
use std::fmt::Write as _;

/// Date of the pages' text, as mdoc writes it.
const DATE: &str = "November 30, 2026";

/// The page nomad-nspawn-policy.toml(5).
///
/// # Errors
/// When the document has no table of keys.
pub fn policy(document: &str) -> Result<String> {
    let mut page = head("NOMAD-NSPAWN-POLICY.TOML 5", "nomad-nspawn-policy.toml")?;
    page.push_str(
        ".Nd what the root helper of the nspawn task driver allows\n.Sh SYNOPSIS\n\
         .Pa /etc/nomad-nspawn/policy.toml\n.Sh DESCRIPTION\n\
         The file decides what the root helper allows, whatever the driver asks for.\n\
         It and every directory above it must belong to root and be closed to other writers.\n\
         It is accepted completely or not at all.\n\
         A missing file means the defaults of the preset\n.Dq strict .\n\
         .Ql systemctl reload nomad-nspawn-helper\nmakes the helper read it again.\n\
         .Ql nomad-nspawnctl policy check\nchecks a file before it is installed.\n.Sh KEYS\n",
    );
    list(&mut page, rows(document, "## Keys", 5)?, |page, cells| {
        let [_, kind, strict, compat, meaning] = cells else { return };
        let default = if *compat == "same" {
            format!("{strict}, also with the preset compat")
        } else {
            format!("{strict}; with the preset compat {compat}")
        };
        entry(page, kind, &default, meaning);
    })?;
    page.push_str(
        ".Sh SEE ALSO\n.Xr nomad-driver-nspawn 7 ,\n.Xr nomad-nspawn-helper 8 ,\n\
         .Xr nomad-nspawnctl 8\n.Pp\n\
         .Pa /usr/share/doc/nomad-driver-nspawn/docs/POLICY.md\n\
         has what no key lifts, and the words of refusals.\n",
    );
    Ok(page)
}

/// The page nomad-driver-nspawn(7); `agent` is the configuration of an agent.
///
/// # Errors
/// When the document lacks one of its tables.
pub fn driver(document: &str, agent: &str) -> Result<String> {
    let mut page = head("NOMAD-DRIVER-NSPAWN 7", "nomad-driver-nspawn")?;
    page.push_str(
        ".Nd task driver of Nomad for systemd-nspawn containers\n.Sh DESCRIPTION\n\
         The plugin\n.Pa /usr/lib/nomad/plugins/nspawn\n\
         is started by the Nomad agent, gives up root, and asks\n.Xr nomad-nspawn-helper 8\n\
         for what needs privileges.\nThe agent's configuration needs:\n.Bd -literal -offset indent\n",
    );
    for line in agent.lines().filter(|line| !line.starts_with('#')) {
        writeln!(page, "{}", text(line))?;
    }
    page.push_str(".Ed\n.Pp\nA job names the driver\n.Ql nspawn .\n.Sh KEYS OF THE PLUGIN\n");
    let keys = |page: &mut String, cells: &[&str]| {
        let [_, kind, default, meaning, since, _] = cells else { return };
        entry(page, kind, default, meaning);
        if *since == "later" {
            page.push_str("This key is for a later version.\n");
        }
    };
    list(&mut page, rows(document, "<!-- plugin keys -->", 6)?, keys)?;
    page.push_str(".Sh KEYS OF A TASK\n");
    list(&mut page, rows(document, "<!-- task keys -->", 6)?, keys)?;
    page.push_str(
        ".Sh SEE ALSO\n.Xr systemd-nspawn 1 ,\n.Xr nomad-nspawn-policy.toml 5 ,\n\
         .Xr nomad-nspawn-helper 8 ,\n.Xr nomad-nspawnctl 8\n.Pp\n\
         .Pa /usr/share/doc/nomad-driver-nspawn/docs/CONFIG.md\n",
    );
    Ok(page)
}

fn head(title: &str, name: &str) -> Result<String> {
    let mut page = String::new();
    writeln!(page, ".Dd {DATE}\n.Dt {title}\n.Os\n.Sh NAME\n.Nm {name}")?;
    Ok(page)
}

/// The rows of the first table after a line that begins with `mark`, each with so many cells.
fn rows<'a>(document: &'a str, mark: &str, cells: usize) -> Result<Vec<Vec<&'a str>>> {
    let mut found = Vec::new();
    let after = document.lines().skip_while(|line| !line.starts_with(mark));
    let table = after.skip_while(|line| !line.starts_with('|'));
    for line in
        table.take_while(|line| line.starts_with('|')).filter(|line| line.starts_with("| `"))
    {
        let row: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if row.len() != cells {
            bail!("{mark}: a row of {} cells, not {cells}: {line}", row.len());
        }
        found.push(row);
    }
    if found.is_empty() { bail!("{mark}: no table") } else { Ok(found) }
}

fn list(
    page: &mut String,
    rows: Vec<Vec<&str>>,
    mut write: impl FnMut(&mut String, &[&str]),
) -> Result<()> {
    page.push_str(".Bl -tag -width indent\n");
    for row in rows {
        let key = row.first().copied().unwrap_or_default();
        writeln!(page, ".It Sy {}", text(key))?;
        write(page, &row);
    }
    page.push_str(".El\n");
    Ok(())
}

fn entry(page: &mut String, kind: &str, default: &str, meaning: &str) {
    for part in [&format!("{kind}, default {default}."), meaning] {
        page.push_str(&text(part));
        page.push('\n');
    }
}

/// Markdown as text of troff: without marks, and nothing in it a request or an escape.
fn text(markdown: &str) -> String {
    let mut out = String::new();
    let plain = without_links(markdown).replace("**", "").replace('`', "");
    for character in plain.chars() {
        match character {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            other => out.push(other),
        }
    }
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

/// `[name](target)` is `name`.
fn without_links(markdown: &str) -> String {
    let mut out = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once("](") {
        let (lead, name) = before.rsplit_once('[').unwrap_or((before, ""));
        out.push_str(lead);
        out.push_str(name);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_request_and_no_escape() {
        assert_eq!(text("`a.b` **is** [here](#there), \\n"), "a.b is here, \\en");
        assert_eq!(text(".Sh x"), "\\&.Sh x");
        assert_eq!(text("'a' --b"), "\\&'a' \\-\\-b");
        assert_eq!(without_links("[a](b) and [c](d)."), "a and c.");
    }

    #[test]
    fn a_row_with_too_many_cells_is_an_error() {
        let table =
            |row: &str| format!("## Keys\n\n| key | x |\n|---|---|\n{row}\n\n| `no` | 1 |\n");
        assert_eq!(rows(&table("| `a` | b |"), "## Keys", 2).unwrap(), [["`a`", "b"]]);
        assert!(rows(&table("| `a` | b | c |"), "## Keys", 2).is_err());
        assert!(rows(&table("text"), "## Other", 2).is_err());
    }
}
