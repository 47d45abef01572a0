//! As whom the payload runs: the numbers for systemd-nspawn, from names in the image's own files.
//!
//! systemd-nspawn's own way (`--user=`) runs the getent of the image, which small images lack, and
//! takes neither a group nor a number without an entry. Numbers in the bundle need nothing of the
//! image. Its own way stays where it does more ([`left_to_nspawn`]).
//!
//! The image is hostile: its files are found with the image's root as the root of the walk, opened
//! only where they are regular files, and read up to a bound. No number outside the task's own ids
//! is passed on. Runs no program.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;
use proto::path::Absolute;
use proto::plan::Plan;
use proto::task_spec::process::{Account, User, UserName, is_id};
use proto::task_spec::{Payload, Root, Volatile};

use super::open;
use super::prepared::{Extras, MountPoint};
use super::root::{Mounted, is_nspawns_own};
use super::stage::OwnPath;
use super::step::{At, Problem};
use super::warnings::is_mounted_over;

/// As much of a file of the image as is read.
pub(super) const FILE_MAX: usize = 1024 * 1024;
/// Where systemd-nspawn looks for it (nspawn-setuid.c).
const GETENT: [&str; 2] = ["usr/bin/getent", "bin/getent"];

/// What the payload's process gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// `USER` and `LOGNAME`.
    pub(super) name: String,
    pub(super) home: Absolute,
}

/// Finds the user; `None`: root, or systemd-nspawn finds it by an option that is added.
pub(super) fn find(
    plan: &Plan,
    root: &Mounted,
    extras: &mut Extras,
) -> Result<Option<Credentials>, Problem> {
    let Some(user) = &plan.process.user else { return Ok(None) };
    // What systemd-nspawn takes without a look into the image.
    if user.group.is_none() && matches!(user.user.to_string().as_str(), "root" | "0") {
        return Ok(None);
    }
    let passwd = read(plan, root, "passwd")?;
    let entry = find_entry(&passwd, &user.user);
    if let Some(name) = left_to_nspawn(plan, root, user, entry.is_some()) {
        if entry.is_none() {
            extras.notes.push(format!("user {name}: not in the image's /etc/passwd"));
        }
        // The one spelling that no version warns of.
        extras.arguments.extend(["-u".to_owned(), name.to_string()]);
        return Ok(None);
    }
    let group = read(plan, root, "group")?;
    let found = resolve(user, entry, &passwd, &group)?;
    check_ids(plan.users.map_or(u32::MAX, |range| range.width), user, &found)?;
    make_home(plan, root, &found)?;
    enter_home(plan, root, &found, extras);
    Ok(Some(found))
}

/// Whether systemd-nspawn's own way does more: the image's getent asks other sources than the file
/// and sees what mounts bring, and for a named user systemd-nspawn opens credentials that nothing
/// with more rights can read (setup_credentials() of nspawn.c). It takes no group.
fn left_to_nspawn<'a>(
    plan: &Plan,
    root: &Mounted,
    user: &'a User,
    in_file: bool,
) -> Option<&'a UserName> {
    let (Account::Name(name), None) = (&user.user, &user.group) else { return None };
    let has_getent =
        GETENT.iter().any(|path| open::in_root(root.directory.as_fd(), Path::new(path)).is_ok());
    let reads_credentials = plan.isolation.no_new_privileges
        && !plan.files.credentials.is_empty()
        && matches!(plan.payload, Payload::Command { .. });
    (has_getent && (!in_file || reads_credentials)).then_some(name)
}

/// A file of accounts, as far as the payload will see it.
pub(super) struct Accounts {
    /// Empty where there is none.
    pub(super) text: String,
    /// Why a name is not found in it, for people.
    pub(super) lacks: &'static str,
}

fn read(plan: &Plan, root: &Mounted, name: &str) -> Result<Accounts, Problem> {
    let object = format!("/etc/{name} of the image");
    let unknown = |lacks| Ok(Accounts { text: String::new(), lacks });
    // systemd-nspawn hides everything but /usr there.
    if plan.root.mode == Root::Volatile(Volatile::Yes) {
        return unknown("volatile = \"yes\" hides the image's /etc");
    }
    if Absolute::parse(&format!("/etc/{name}")).is_ok_and(|path| is_mounted_over(plan, &path)) {
        return unknown("a mount of the job covers the image's file");
    }
    let handle = open::in_root(root.directory.as_fd(), &Path::new("etc").join(name));
    // The image's word in every case: another try reads the same.
    let bad = |e: std::io::Error| Problem::refused(&object, e);
    let Some(handle) = open::if_there(handle).map_err(bad)? else {
        return unknown("the image has no such file");
    };
    // A FIFO would hold the start up, a device could do anything.
    if !open::metadata(&handle).map_err(bad)?.is_file() {
        return Err(Problem::refused(object, "is not a regular file"));
    }
    let file = File::from(OwnPath::of_handle(&handle).open(OFlag::O_RDONLY).map_err(bad)?);
    let bytes = open::read_all(file, FILE_MAX).map_err(bad)?;
    // Comments may be in any encoding; names and numbers are ASCII.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Accounts { text, lacks: "not in the file" })
}

/// The line of a user (passwd(5)).
#[derive(Debug)]
pub(super) struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

pub(super) fn find_entry<'a>(passwd: &'a Accounts, wanted: &Account) -> Option<Entry<'a>> {
    passwd.text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, uid) = (fields.next()?, fields.next()?, fields.next()?);
        let (gid, _comment, home) = (fields.next()?, fields.next()?, fields.next()?);
        let entry = Entry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home };
        let matches = match wanted {
            Account::Id(uid) => entry.uid == *uid,
            Account::Name(wanted) => name == wanted.as_str(),
        };
        matches.then_some(entry)
    })
}

/// Name, number and members of each group (group(5)).
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

/// The numbers; without a group of the job's, as at a login.
pub(super) fn resolve(
    user: &User,
    entry: Option<Entry<'_>>,
    passwd: &Accounts,
    group: &Accounts,
) -> Result<Credentials, Problem> {
    let lacks = |kind: &str, name: &UserName, file: &str, accounts: &Accounts| {
        let reason = format!(
            "the image's /etc/{file} does not have it ({}); give its number, as in \"1000:1000\"",
            accounts.lacks
        );
        Problem::refused(format!("{kind} {name}"), reason)
    };
    let uid = match (&user.user, &entry) {
        (Account::Id(uid), _) => *uid,
        (Account::Name(_), Some(entry)) => entry.uid,
        (Account::Name(name), None) => return Err(lacks("user", name, "passwd", passwd)),
    };
    let (gid, mut others) = match (&user.group, &entry) {
        (Some(Account::Id(gid)), _) => (*gid, Vec::new()),
        (Some(Account::Name(name)), _) => {
            let found = groups(&group.text).find(|(known, ..)| *known == name.as_str());
            let (_, gid, _) = found.ok_or_else(|| lacks("group", name, "group", group))?;
            (gid, Vec::new())
        }
        (None, Some(entry)) => {
            let is_in = |members: &str| members.split(',').any(|member| member == entry.name);
            let member = groups(&group.text).filter(|(_, _, members)| is_in(members));
            (entry.gid, member.map(|(_, gid, _)| gid).collect())
        }
        // As OCI runtimes do: files of an image that are to be anybody's are of group 0.
        (None, None) => (0, Vec::new()),
    };
    others.retain(|other| *other != gid);
    others.sort_unstable();
    others.dedup();
    let home = entry.as_ref().map_or("/", |entry| entry.home);
    let home = Absolute::parse(home).or_else(|_| Absolute::parse("/"));
    let name = entry.and_then(|entry| UserName::new(entry.name).ok());
    Ok(Credentials {
        uid,
        gid,
        groups: others,
        name: name.map_or_else(|| uid.to_string(), |name| name.to_string()),
        home: home.map_err(|rule| Problem::refused("home", rule))?,
    })
}

/// The image must not choose an id that the task does not have.
pub(super) fn check_ids(width: u32, user: &User, found: &Credentials) -> Result<(), Problem> {
    let all = [("uid", found.uid), ("gid", found.gid)];
    let all = all.into_iter().chain(found.groups.iter().map(|gid| ("supplementary gid", *gid)));
    match all.into_iter().find(|(_, id)| *id >= width || !is_id(*id)) {
        None => Ok(()),
        Some((what, id)) => {
            let reason = format!(
                "its {what} {id} is not one of the task's: ids begin at 0, {width} of them"
            );
            Err(Problem::refused(format!("user {user}"), reason))
        }
    }
}

/// Makes a home that is missing, as systemd-nspawn does for its own `--user=`.
fn make_home(plan: &Plan, root: &Mounted, found: &Credentials) -> Result<(), Problem> {
    let writable = !matches!(plan.root.mode, Root::ReadOnly | Root::Volatile(_));
    let (home, path) = (&found.home, found.home.to_path());
    let find = || open::if_there(open::in_root(root.directory.as_fd(), &path));
    // Anything but "not there" is left as it is: the payload may do without a home.
    let missing = matches!(find(), Ok(None));
    if !writable || !missing || is_nspawns_own(home) || is_mounted_over(plan, home) {
        return Ok(());
    }
    root.provide(home, MountPoint::Directory)?;
    let Some(made) = find().at(home)? else { return Ok(()) };
    let on_host = |id: u32| root.owner.saturating_add(id);
    open::set_owner(&made, on_host(found.uid), on_host(found.gid)).at(home)
}

/// The image's shell begins in the user's home, where there is one.
fn enter_home(plan: &Plan, root: &Mounted, found: &Credentials, extras: &mut Extras) {
    let (Payload::Command { words } | Payload::ProcessTwo { words }) = &plan.payload else {
        return;
    };
    let home = open::in_root(root.directory.as_fd(), &found.home.to_path());
    let is_directory = home.and_then(|home| open::metadata(&home)).is_ok_and(|meta| meta.is_dir());
    if words.is_empty() && plan.process.directory.is_none() && is_directory {
        extras.arguments.push(format!("--chdir={}", found.home));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                          torn:x:1000\n\
                          app:x:1000:100:caf\u{fffd}:/srv/app:/bin/sh\n\
                          twin:x:1000:7::/twin:\n\
                          odd:x:5:5::../x:\n";
    const GROUP: &str = "users:x:100:app\nmedia:x:44:other,app\nwheel:x:10:\naudio:x:29:app\n";

    fn credentials(user: &str) -> Result<Credentials, Problem> {
        let user = User::parse(user).unwrap();
        let text = |text: &str| Accounts { text: text.to_owned(), lacks: "not in the file" };
        let (passwd, group) = (text(PASSWD), text(GROUP));
        resolve(&user, find_entry(&passwd, &user.user), &passwd, &group)
    }

    #[test]
    fn names_and_numbers_become_ids_as_at_a_login() {
        for (user, uid, gid, groups, name, home) in [
            ("app", 1000, 100, &[29, 44][..], "app", "/srv/app"),
            ("1000", 1000, 100, &[29, 44], "app", "/srv/app"),
            ("app:media", 1000, 44, &[], "app", "/srv/app"),
            ("app:7", 1000, 7, &[], "app", "/srv/app"),
            ("4000", 4000, 0, &[], "4000", "/"),
            ("4000:wheel", 4000, 10, &[], "4000", "/"),
            ("0:0", 0, 0, &[], "root", "/root"),
            ("odd", 5, 5, &[], "odd", "/"),
        ] {
            let found = credentials(user).unwrap();
            assert_eq!(
                (found.uid, found.gid, found.groups.as_slice()),
                (uid, gid, groups),
                "{user}"
            );
            assert_eq!((found.name.as_str(), found.home.to_string().as_str()), (name, home));
        }
    }

    #[test]
    fn what_is_in_no_file_is_named_with_the_way_out() {
        for (user, object) in [("torn", "user torn"), ("x:7", "user x"), ("7:nope", "group nope")] {
            let problem = format!("{:?}", credentials(user).unwrap_err());
            assert!(problem.contains(object) && problem.contains("1000:1000"), "{problem}");
        }
    }
}
