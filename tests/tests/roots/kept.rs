//! `persist = "alloc"`: changes that the next run of the same allocation's task finds again.

use crate::*;
use nspawn_tests::wait;
use proto::name::Instance;
use proto::task_spec::Users;
use std::time::Duration;

const KEPT: Root = Root::Ephemeral(Layer::Kept);

/// Directories of layers kept for an allocation.
fn layers(task: &Handmade<'_>) -> Vec<String> {
    let names = rig().run(&["ls", UPPERS]).unwrap();
    let prefix = format!("kept-{}-", task.key.alloc.simple());
    names.lines().filter(|name| name.starts_with(&prefix)).map(str::to_owned).collect()
}

/// The next run of the same task.
fn next(task: &mut Handmade<'_>) {
    task.key.instance = Instance(task.key.instance.0 + 1);
}

#[test]
fn the_next_run_finds_what_the_last_one_changed() {
    let path = image("kept", "");
    let before = fingerprint(&path);
    let mut task = Handmade::new(rig(), "keeps").unwrap();
    let change = "echo one > /etc/one; rm /etc/hosts; mkdir /srv/d; chown 1000 /srv/d; chmod 711 /";
    assert_eq!(run_of(&task, tree("kept", KEPT), change).unwrap(), "");
    let look = "cat /etc/one; ls /etc/hosts 2>&1 | grep -c such; stat -c %u:%g /srv/d /etc/one; \
                stat -c %a /; echo two >> /etc/one";
    let expected = lines(&["one", "1", "1000:0", "0:0", "711"]);
    next(&mut task);
    assert_eq!(run_of(&task, tree("kept", KEPT), look).unwrap(), expected);
    next(&mut task);
    assert_eq!(run_of(&task, tree("kept", KEPT), "cat /etc/one").unwrap(), "one\ntwo");
    // A run that does not keep sees the image, and so does another allocation's.
    next(&mut task);
    let other = tree("kept", Root::Ephemeral(Layer::Disk));
    assert_eq!(run_of(&task, other, "ls /etc/hosts").unwrap(), "/etc/hosts");
    assert_eq!(run(tree("kept", KEPT), "ls /etc/hosts"), "/etc/hosts");
    assert_eq!(fingerprint(&path), before);
    task.remove(&client()).unwrap();
}

/// The kernel takes an overlay's layers as one text of options, in which these would be others.
#[test]
fn a_tasks_name_is_never_read_as_options() {
    for name in
        ["a,volatile", r"a:b=c\d", r"a\,ro", "a,lowerdir=b", "-a b,", "a,upperdir=srv,workdir=tmp"]
    {
        let mut task = Handmade::new(rig(), name).unwrap();
        assert_eq!(run_of(&task, tree("busybox", KEPT), "echo x > /x").unwrap(), "", "{name}");
        let layer = layers(&task).remove(0);
        assert!(layer.ends_with(&format!("-{name}")), "{layer}");
        assert!(rig().exists(&format!("{UPPERS}/{layer}/upper/x")), "{name}");
        next(&mut task);
        assert_eq!(run_of(&task, tree("busybox", KEPT), "cat /x").unwrap(), "x", "{name}");
        task.remove(&client()).unwrap();
    }
}

#[test]
fn a_killed_run_leaves_what_it_changed_to_the_next() {
    let (mut task, client) = (Handmade::new(rig(), "keeps").unwrap(), client());
    let script = "echo one > /one; echo up; sleep 60";
    start(&task, &client, tree("busybox", KEPT), script).unwrap();
    wait::true_within("the script", Duration::from_secs(20), || {
        Ok(task.written(0)?.starts_with(b"up"))
    })
    .unwrap();
    let unit = format!("nomad-nspawn-{}.service", proto::unit_id::UnitId::from(&task.key));
    rig().run(&["systemctl", "kill", "--signal=KILL", &unit]).unwrap();
    task.wait_ended(&client).unwrap();
    end_run(&task, &client);
    next(&mut task);
    assert_eq!(run_of(&task, tree("busybox", KEPT), "cat /one").unwrap(), "one");
    task.remove(&client).unwrap();
}

#[test]
fn a_layer_goes_when_its_allocation_is_gone() {
    let task = Handmade::new(rig(), "keeps").unwrap();
    run_of(&task, tree("busybox", KEPT), "mkdir -p /a/b/c; echo x > /a/b/c/d").unwrap();
    // Another task's end takes it along only when the allocation's directory is gone.
    run(tree("busybox", Root::ReadOnly), "true");
    assert_eq!(layers(&task).len(), 1);
    let key = task.key.clone();
    let again = Handmade::new(rig(), "other").unwrap();
    task.remove(&client()).unwrap();
    run_of(&again, tree("busybox", Root::ReadOnly), "true").unwrap();
    again.remove(&client()).unwrap();
    let names = rig().run(&["ls", UPPERS]).unwrap();
    assert!(!names.contains(&key.alloc.simple()), "{names}");
}

#[test]
fn a_layer_goes_though_no_task_ever_ends_again() {
    // Where no allocation is, the file system may not be mounted, and nothing is concluded.
    let other = Handmade::new(rig(), "other").unwrap();
    let task = Handmade::new(rig(), "keeps").unwrap();
    run_of(&task, tree("busybox", KEPT), "echo x > /x").unwrap();
    let alloc = task.key.alloc.simple();
    task.remove(&client()).unwrap();
    wait::true_within("the helper's look at what is kept", Duration::from_secs(90), || {
        Ok(!rig().run(&["ls", UPPERS])?.contains(&alloc))
    })
    .unwrap();
    other.remove(&client()).unwrap();
}

/// Files of a layer belong to a range: with another one they would be nobody's, or somebody's.
#[test]
fn a_layer_is_used_with_its_own_range_alone() {
    let mut task = Handmade::new(rig(), "keeps").unwrap();
    run_of(&task, tree("busybox", KEPT), "echo x > /x").unwrap();
    let name = layers(&task).remove(0);
    let base: u32 = name.split('-').nth(2).unwrap().parse().unwrap();
    let owner = rig().run(&["stat", "-c", "%u", &format!("{UPPERS}/{name}/upper/x")]).unwrap();
    assert_eq!(owner, base.to_string());
    next(&mut task);
    let other = if base == proto::limits::RANGE_FIRST { base + 65_536 } else { base - 65_536 };
    let change = |spec: &mut TaskSpec| {
        tree("busybox", KEPT)(spec);
        spec.users = Users::Fixed { base: other, width: 65_536 };
    };
    let refusal = run_of(&task, change, "cat /x").unwrap_err().to_string();
    assert!(refusal.contains(&format!("belongs to the uid range {base}")), "{refusal}");
    next(&mut task);
    assert_eq!(run_of(&task, tree("busybox", KEPT), "cat /x").unwrap(), "x");
    // The range follows the layer, not the allocation's id alone.
    let (from, to) =
        (format!("{UPPERS}/{name}"), name.replace(&base.to_string(), &other.to_string()));
    rig()
        .sh(&format!("chown -R {other}:{other} {from}/upper {from}/work; mv {from} {UPPERS}/{to}"))
        .unwrap();
    next(&mut task);
    assert_eq!(
        run_of(
            &task,
            tree("busybox", KEPT),
            "cat /x; stat -c %u /x; cut -c1-32 /proc/self/uid_map | xargs"
        )
        .unwrap(),
        format!("x\n0\n0 {other} 65536")
    );
    task.remove(&client()).unwrap();
}

/// What is kept for an allocation that nobody made would never go where no allocation ever lies.
#[test]
fn nothing_is_kept_for_an_allocation_that_is_not_there() {
    let task = Handmade::new(rig(), "keeps").unwrap();
    let dir = task.dir();
    rig().run(&["mv", &dir, &format!("{dir}-away")]).unwrap();
    let refused = run_of(&task, tree("busybox", KEPT), "true").unwrap_err().to_string();
    assert!(refused.starts_with("root: ") && refused.contains(&dir), "{refused}");
    assert_eq!(layers(&task), Vec::<String>::new());
    rig().run(&["mv", &format!("{dir}-away"), &dir]).unwrap();
    task.remove(&client()).unwrap();
}
