//! Each mode: what can be written inside, what stays.

use crate::*;
use nspawn_tests::hostile::LIMIT;
use proto::secret::Secret;
use proto::task_spec::Payload;

/// Tries to write in five places and says which went well; then who owns what it made.
const WRITE: &str = r#"
for d in / /etc /usr /var /home/app /tmp /run /alloc /local; do
  if (echo x > $d/.probe) 2>/dev/null; then echo "$d $(stat -c %u:%g $d/.probe)"; fi
done"#;

fn writable_places(image: &str, mode: Root) -> Vec<String> {
    let said = run(tree(image, mode), WRITE);
    said.lines().map(|line| line.strip_suffix(" 0:0").unwrap_or(line).to_owned()).collect()
}

const OWN: [&str; 4] = ["/tmp", "/run", "/alloc", "/local"];

fn with_own(places: &[&str]) -> Vec<String> {
    places.iter().chain(&OWN).map(|place| (*place).to_owned()).collect()
}

#[test]
fn plain_changes_the_image_and_owners_on_disk_are_those_inside() {
    let path = image("plain", "");
    assert_eq!(
        writable_places("plain", Root::Plain),
        with_own(&["/", "/etc", "/usr", "/var", "/home/app"])
    );
    let owner = rig().run(&["stat", "-c", "%u:%g", &format!("{path}/etc/.probe")]).unwrap();
    assert_eq!(owner, "0:0");
    assert_eq!(run(tree("plain", Root::Plain), "cat /etc/.probe"), "x");
}

#[test]
fn read_only_can_be_written_nowhere_but_in_the_mounts() {
    assert_eq!(writable_places("busybox", Root::ReadOnly), with_own(&[]));
}

#[test]
fn ephemeral_can_be_written_everywhere_and_nothing_stays() {
    for layer in [Layer::Disk, Layer::Memory] {
        let mode = Root::Ephemeral(layer);
        let all = with_own(&["/", "/etc", "/usr", "/var", "/home/app"]);
        assert_eq!(writable_places("busybox", mode), all, "{layer:?}");
        // Files of the image can be given away, replaced and removed.
        let script = "rm /etc/hosts && chown 1000:1000 /etc/passwd && chmod u+s /usr/bin/busybox \
                      && ls -n /etc/passwd /usr/bin/busybox | cut -c1-10,15-35 && ls /etc/hosts";
        let said = run(tree("busybox", mode), script);
        assert!(said.contains("-rws"), "{said}");
        assert!(said.contains("1000"), "{said}");
        assert!(said.contains("No such file"), "{said}");
    }
}

#[test]
fn volatile_overlay_is_an_ephemeral_root_in_memory() {
    let all = with_own(&["/", "/etc", "/usr", "/var", "/home/app"]);
    assert_eq!(writable_places("busybox", Root::Volatile(Volatile::Overlay)), all);
}

#[test]
fn volatile_state_has_an_empty_var_in_memory() {
    let state = Root::Volatile(Volatile::State);
    assert_eq!(writable_places("busybox", state), with_own(&["/var"]));
    let said = run(tree("busybox", state), "ls /var; stat -f -c %T /var");
    assert_eq!(said, "tmpfs");
}

#[test]
fn volatile_yes_has_nothing_but_usr() {
    let yes = Root::Volatile(Volatile::Yes);
    // /home/app is not there.
    assert_eq!(writable_places("busybox", yes), with_own(&["/", "/etc", "/var"]));
    let said = run(tree("busybox", yes), "ls /etc; stat -f -c %T / /etc; cat /usr/lib/os-release");
    assert!(said.starts_with("tmpfs\ntmpfs\nID=busybox"), "{said}");
}

#[test]
fn layers_in_memory_are_not_on_disk() {
    let (task, client) = (Handmade::new(rig(), "roots").unwrap(), client());
    let unit = format!("{UPPERS}/{}", proto::unit_id::UnitId::from(&task.key));
    let script = "echo x > /layer-file; echo up; sleep 60";
    for (layer, on_disk) in [(Layer::Memory, false), (Layer::Disk, true)] {
        let change = tree("busybox", Root::Ephemeral(layer));
        start(&task, &client, change, script).unwrap();
        nspawn_tests::wait::true_within("the script", LIMIT, || {
            Ok(task.written(0)?.starts_with(b"up"))
        })
        .unwrap();
        assert_eq!(rig().exists(&format!("{unit}/upper/layer-file")), on_disk, "{layer:?}");
        end_run(&task, &client);
        assert!(!rig().exists(&unit));
    }
    task.remove(&client).unwrap();
}

#[test]
fn the_machine_id_is_the_allocations_wherever_the_layer_is_ours() {
    let other = "0123456789abcdef0123456789abcdef";
    let ids = format!(
        "echo {other} > etc/machine-id; mkdir var/lib/dbus; \
                       echo {other} > var/lib/dbus/machine-id"
    );
    image("machine-id", &ids);
    for mode in HARMLESS {
        if mode == Root::Volatile(Volatile::Yes) {
            continue;
        }
        let task = Handmade::new(rig(), "roots").unwrap();
        let script = "cat /etc/machine-id; cat /var/lib/dbus/machine-id 2>/dev/null";
        let said = run_of(&task, tree("machine-id", mode), script).unwrap();
        assert_eq!(said, task.key.alloc.simple(), "{mode:?}");
        task.remove(&client()).unwrap();
    }
    // A plain image keeps its own.
    assert_eq!(run(tree("machine-id", Root::Plain), "cat /etc/machine-id"), other);
}

/// A directory there would stop every try in the same way.
#[test]
fn a_directory_in_place_of_the_machine_id_is_refused() {
    image("machine-directory", "rm -f etc/machine-id; mkdir etc/machine-id");
    let refusal = try_run(tree("machine-directory", Root::ReadOnly), "true").unwrap_err();
    assert!(!refusal.is_retryable(), "{refusal}");
    assert!(
        refusal.to_string().contains("/etc/machine-id: is a directory in the image"),
        "{refusal}"
    );
}

#[test]
fn a_system_boots_in_every_mode_and_shuts_down() {
    for mode in HARMLESS {
        let (task, client) = (Handmade::new(rig(), "boots").unwrap(), client());
        let boot = |spec: &mut TaskSpec| {
            tree("debian", mode)(spec);
            // The driver says the second: else the system asks for its name at the console.
            let words = ["systemd.unit=multi-user.target", "systemd.firstboot=no"];
            spec.payload = Payload::Boot { arguments: words.map(Secret::new).to_vec() };
        };
        start(&task, &client, boot, "").unwrap();
        let leader = || match client.ask(Verb::Status(task.key.clone())) {
            Ok(Ok(Answer::Status(task))) => task.leader.unwrap().to_string(),
            other => panic!("{other:?}"),
        };
        let leader = leader();
        let target = format!("--target={leader}");
        let inside = ["nsenter", &target, "--all", "--root", "--wd", "systemctl"];
        let ask = |words: &[&str]| rig().exec(&[&inside, words].concat()).unwrap().text();
        let state = nspawn_tests::wait::until("the system", LIMIT, || {
            let state = ask(&["is-system-running"]).trim().to_owned();
            Ok(matches!(state.as_str(), "running" | "degraded").then_some(state))
        });
        let state = state.unwrap_or_else(|error| panic!("{mode:?}: {error:#}"));
        // Logind cannot make its directory in /var of a read-only system.
        let bare = mode == Root::ReadOnly && state == "degraded";
        assert!(bare || state == "running", "{mode:?}: {}", ask(&["--failed"]));
        end_run(&task, &client);
        task.remove(&client).unwrap();
    }
}

/// Every mode, and every kind of harm that a payload can do to its root.
#[test]
fn the_image_stays_as_it_is_to_the_byte() {
    let path = image("unchanged", "echo secret > root/file; chmod 600 root/file; rmdir mnt srv");
    let before = fingerprint(&path);
    let harm = "echo x > /etc/passwd; rm -rf /home /etc/group; chown -R 1000 /root; chmod 777 \
                /usr; mkdir -p /mnt/a /srv; mv /opt /opt2; ln -f /usr/bin/busybox /usr/bin/other; \
                touch -d @0 /usr/lib/os-release; mknod /null c 1 3; sync; echo done";
    for mode in HARMLESS {
        let said = run(tree("unchanged", mode), harm);
        assert!(said.contains("done"), "{mode:?}: {said}");
        assert_eq!(fingerprint(&path), before, "{mode:?}");
    }
}

#[test]
fn usr_as_a_link_leads_nowhere() {
    // On the host it is a directory with a file that the container must not see.
    rig().sh("mkdir -p /root/outside/lib && echo host > /root/outside/lib/os-release").unwrap();
    image("linked-usr", "rm -r usr; ln -s /root/outside usr");
    image("unmerged", "rm bin; mkdir bin; cp usr/bin/busybox bin/sh");
    for name in ["linked-usr", "unmerged"] {
        let said = refused(tree(name, Root::Volatile(Volatile::Yes)));
        assert!(said.contains("/usr must be a directory"), "{name}: {said}");
    }
}
