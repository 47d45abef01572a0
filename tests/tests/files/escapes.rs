//! Ways out that an audit found: each is tried as its attacker would, and the host is looked at after.

use crate::{at, host, path};
use nspawn_tests::hostile::{Door, Handmade};
use proto::codec;
use proto::error::Refusal;
use proto::name::ImageName;
use proto::spec::{Image, Layer, Pivot, Root, RootFs};

fn named(name: &str) -> Image {
    Image::Named(ImageName::new(name).unwrap())
}

/// systemd-nspawn, still host root, writes two files below /run/host by path after its mounts: with
/// the image's own top there, the image's links would choose the files.
#[test]
fn s1_a_pivot_never_leads_host_root_over_links_of_the_image() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/s1; cd /var/lib/machines; cp -a busybox s1; cd s1; mkdir new; \
         cp -a bin sbin usr lib etc new; ln -s /srv/s1/victim container-manager; \
         ln -s /srv/s1/made container-uuid")
        .unwrap();
    // A driver that checks nothing; what the types cannot hold is written into the bytes.
    let start = |mode: Root, old: &str| -> Result<(), Refusal> {
        rig.write_file("/srv/s1/victim", "of the host\n", 0o600).unwrap();
        let task = Handmade::new(rig, "t").unwrap();
        let client = Door::of(rig).unwrap().enter().unwrap();
        let mut spec = task.spec(&["/bin/true"]).unwrap();
        spec.image = named("s1");
        let placeholder = "/old/placeholder";
        let pivot = Pivot { new: path("/new"), old: Some(at(placeholder)) };
        spec.root = RootFs { pivot: Some(pivot), ..RootFs::tree(mode) };
        let bytes = codec::encode_whole(&spec).unwrap();
        let [from, to] = [placeholder, old].map(|text| codec::encode(&path(text)).unwrap());
        let at = bytes.windows(from.len()).position(|some| some == from).unwrap();
        let bytes = [&bytes[..at], &to, &bytes[at + from.len()..]].concat();
        let answer = client.start_bytes(&bytes).unwrap();
        if answer.is_ok() {
            task.wait_ended(&client).unwrap();
        }
        task.remove(&client).unwrap();
        answer.map(drop)
    };
    for mode in [Root::Plain, Root::Ephemeral(Layer::Disk)] {
        let refused = start(mode, "/run/host");
        let victim = rig.run(&["cat", "/srv/s1/victim"]).unwrap();
        assert_eq!(victim, "of the host", "{mode:?}: {refused:?}");
        assert!(!rig.exists("/srv/s1/made"), "{mode:?}");
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("/run/host"), "{text}");
        for old in ["/run/host/x", "/run", "/proc/x", "/dev", "/alloc"] {
            start(mode, old).unwrap_err();
        }
        start(mode, "/old/root").unwrap();
    }
}
