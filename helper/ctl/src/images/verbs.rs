//! The words behind `images`, and what they print.
//!
//! Trusts the person who calls it, who must be root: the store is closed to all others. Never reads
//! what a layer holds.

use std::path::Path;

use nix::unistd::geteuid;
use proto::layer::{Digest, IMAGES, ImageRecord};
use proto::name::ImageName;
use serde_json::json;

use super::{import, store::Store};

/// Runs one verb.
///
/// # Errors
/// Wrong words, or what stands in the way.
pub(crate) fn run(words: &[&str]) -> Result<bool, String> {
    if !geteuid().is_root() {
        return Err(format!("images needs root: {IMAGES} is closed to all others"));
    }
    match words {
        ["import", file] => import::run(Path::new(file), default_name(file)?),
        ["import", file, "--name", name] | ["import", "--name", name, file] => {
            import::run(Path::new(file), parse_name(name)?)
        }
        ["list"] => list(),
        ["list", "--json"] => list_json(),
        ["rm", name] => remove(&parse_name(name)?),
        _ => Err("images: import FILE [--name NAME] | list [--json] | rm NAME".to_owned()),
    }
    .map(|()| true)
}

/// A name that a job can have in `image`.
fn parse_name(text: &str) -> Result<ImageName, String> {
    if text.ends_with(".raw") {
        return Err(format!("{text}: a name with that ending means a disk image in a job"));
    }
    ImageName::new(text).map_err(|e| format!("{text}: {e}"))
}

/// The file's own name without the endings of archives.
fn default_name(file: &str) -> Result<ImageName, String> {
    let name = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let compressed = [".gz", ".xz", ".zst", ".bz2"];
    let stem = compressed.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let stem = stem.strip_suffix(".tar").or_else(|| name.strip_suffix(".tgz")).unwrap_or(stem);
    parse_name(stem).map_err(|e| format!("{e}; give another with --name"))
}

/// A name, its id, its record.
type Named = (ImageName, Digest, Result<ImageRecord, String>);

fn all() -> Result<Vec<Named>, String> {
    let Some(store) = Store::find()? else { return Ok(Vec::new()) };
    let named = |(name, id): (ImageName, Digest)| (name, id, store.record(id));
    Ok(store.names()?.into_iter().map(named).collect())
}

fn size(record: &ImageRecord) -> u64 {
    record.layers().iter().map(|layer| layer.size).fold(0, u64::saturating_add)
}

fn list() -> Result<(), String> {
    let all = all()?;
    if all.is_empty() {
        println!("no imported images");
    }
    for (name, id, record) in all {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                println!("{name}  damaged: {error}");
                continue;
            }
        };
        let (size, layers) = (size(&record).div_ceil(1 << 20), record.layers().len());
        let layers = if layers == 1 { "1 layer".to_owned() } else { format!("{layers} layers") };
        println!("{name}  {size} MiB in {layers}  {id}");
    }
    Ok(())
}

fn list_json() -> Result<(), String> {
    let row = |(name, id, record): Named| {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                return json!({ "name": name.as_str(), "id": id.to_string(), "error": error });
            }
        };
        let layers: Vec<_> = record
            .layers()
            .iter()
            .map(|stored| {
                json!({
                    "source": stored.layer.source.as_str(),
                    "digest": stored.layer.digest.to_string(),
                    "size": stored.size,
                })
            })
            .collect();
        json!({
            "name": name.as_str(),
            "id": id.to_string(),
            "size": size(&record),
            "layers": layers,
        })
    };
    let all: Vec<_> = all()?.into_iter().map(row).collect();
    println!("{}", json!(all));
    Ok(())
}

fn remove(name: &ImageName) -> Result<(), String> {
    let store =
        Store::find()?.ok_or_else(|| format!("there is no image {name}: {IMAGES} is missing"))?;
    let freed = store.remove(name)?;
    println!(
        "{name} is removed; {} MiB are free again when no task uses them",
        freed.div_ceil(1 << 20)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_without_the_endings_of_archives() {
        for file in
            ["/srv/web.tar", "web.tar.gz", "./web.tgz", "web.tar.zst", "a/web.tar.xz", "web"]
        {
            assert_eq!(default_name(file).unwrap().as_str(), "web", "{file}");
        }
        for file in ["/srv/a b.tar", "..", "/", ".tar", "web.raw"] {
            let error = default_name(file).unwrap_err();
            assert!(error.contains("--name"), "{file}: {error}");
        }
        assert!(parse_name("web.raw").is_err() && parse_name("web-1.2_x+y").is_ok());
    }
}
