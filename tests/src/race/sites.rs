//! The tree of a task in miniature, and the places in it that the launcher opens.

use super::{Product, Site, identity};
use anyhow::Result;
use launcher::test_access as door;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, chown, mkfifo};
use proto::name::{AllocId, Instance, MachineName, TaskName};
use proto::path::{Absolute, Component, Relative};
use proto::plan::{Place, Plan, PlannedFiles, PlannedNetwork, TaskDirs};
use proto::task_spec::{Isolation, Layer, Logs, Names, Payload, Process, Resources, Root, RootFs};
use proto::unit_id::UnitId;
use std::fs;
use std::path::Path;

const ALLOC: &str = "07070707-0707-0707-0707-070707070707";
/// The agent's uid: not root, so that secrets need no mount of their own here.
const AGENT: u32 = 1;

/// Makes the tree.
pub(super) fn tree(top: &Path) -> Result<()> {
    let alloc = top.join("alloc").join(ALLOC);
    for directory in ["alloc/logs", "web/local", "web/secrets"] {
        fs::create_dir_all(alloc.join(directory))?;
    }
    for stream in ["stdout", "stderr"] {
        let fifo = alloc.join(format!("alloc/logs/.web.{stream}.fifo"));
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
        chown(&fifo, Some(Uid::from_raw(AGENT)), None)?;
    }
    // The content says where it is.
    fs::write(alloc.join("web/local/token"), top.display().to_string())?;
    for directory in ["images/group/web", "srv/data/directory", "netns"] {
        fs::create_dir_all(top.join(directory))?;
    }
    fs::write(top.join("netns").join(ALLOC), "")?;
    Ok(())
}

fn place(top: &Path, root: &str, below: &[&str]) -> Result<Place> {
    let root = Absolute::parse(&top.join(root).display().to_string())?;
    let below: Result<Vec<_>, _> = below.iter().map(|part| Component::new(*part)).collect();
    Ok(Place { root, below: Relative::new(below?)? })
}

/// A plan whose places lie in the tree.
pub(crate) fn plan(top: &Path) -> Result<Plan> {
    let alloc = AllocId([7; 16]);
    Ok(Plan {
        unit: UnitId { alloc, instance: Instance(1) },
        machine: MachineName::new("web-1")?,
        alloc,
        users: None,
        image: place(top, "images", &["group", "web"])?,
        layers: Vec::new(),
        root: RootFs::tree(Root::Ephemeral(Layer::Disk)),
        payload: Payload::Command { words: Vec::new() },
        process: Process::default(),
        isolation: Isolation::default(),
        cached_filters: false,
        network: PlannedNetwork::Loopback,
        names: Names::default(),
        files: PlannedFiles::default(),
        environment: Vec::new(),
        task_dirs: TaskDirs {
            alloc_dir: place(top, "alloc", &[ALLOC])?,
            task: TaskName::new("web")?,
            agent_uid: AGENT,
        },
        logs: Logs::Fifos,
        kill_signal: 15,
        resources: Resources::default(),
        min_free: 0,
        agent: None,
    })
}

/// Opens a place as the product does.
fn by_place(place: Place, flags: OFlag) -> Product {
    Box::new(move || {
        let opened = door::place(&place, flags).map_err(|e| e.to_string())?;
        identity(&opened).map(|one| vec![one])
    })
}

/// Reads a file of the task as a credential and tells by its content whose it was.
fn by_content(plan: Plan, top: &Path) -> Result<Product> {
    let below = Relative::new(vec![Component::new("local")?, Component::new("token")?])?;
    let own = top.display().to_string().into_bytes();
    let twin = top.with_file_name("outside").join("alloc").join(ALLOC).join("web/local/token");
    let twin = identity(fs::File::open(twin)?).map_err(anyhow::Error::msg)?;
    Ok(Box::new(move || {
        let content = door::credential(&plan, &below)?;
        Ok(if content == own { Vec::new() } else { vec![twin] })
    }))
}

/// A place two directories deep; either is swapped.
fn of_place(top: &Path, name: &'static str, root: &str, below: [&str; 2]) -> Result<Site> {
    let first = top.join(root).join(below[0]);
    let path = first.join(below[1]);
    let product = by_place(place(top, root, &below)?, OFlag::O_PATH);
    let swaps = vec![first, path.clone()];
    Ok(Site { name, path, flags: OFlag::O_PATH, swaps, product })
}

/// All of them.
pub(super) fn all(top: &Path) -> Result<Vec<Site>> {
    let alloc = top.join("alloc").join(ALLOC);
    let plan = plan(top)?;
    let all = |opened: &[std::os::fd::OwnedFd]| opened.iter().map(identity).collect();
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
    Ok(vec![
        Site {
            name: "allocation directories",
            path: alloc.join("web/local"),
            flags: directory,
            swaps: vec![
                alloc.clone(),
                alloc.join("alloc"),
                alloc.join("web"),
                alloc.join("web/local"),
            ],
            product: Box::new({
                let plan = plan.clone();
                move || all(&door::directories(&plan)?)
            }),
        },
        Site {
            name: "log FIFOs",
            path: alloc.join("alloc/logs/.web.stdout.fifo"),
            flags: OFlag::O_RDWR,
            swaps: vec![
                alloc.join("alloc"),
                alloc.join("alloc/logs"),
                alloc.join("alloc/logs/.web.stdout.fifo"),
            ],
            product: Box::new({
                let plan = plan.clone();
                move || all(&door::streams(&plan)?)
            }),
        },
        of_place(top, "image", "images", ["group", "web"])?,
        of_place(top, "bind sources", "srv", ["data", "directory"])?,
        Site {
            name: "credentials",
            path: alloc.join("web/local/token"),
            flags: OFlag::O_RDONLY,
            swaps: vec![alloc.join("web"), alloc.join("web/local"), alloc.join("web/local/token")],
            product: by_content(plan, top)?,
        },
        Site {
            name: "network namespace",
            path: top.join("netns").join(ALLOC),
            flags: OFlag::O_RDONLY,
            swaps: vec![top.join("netns").join(ALLOC)],
            product: by_place(place(top, "netns", &[ALLOC])?, OFlag::O_RDONLY),
        },
    ])
}
