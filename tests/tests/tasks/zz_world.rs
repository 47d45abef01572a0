//! The host after all tests of this file. The name makes it the last that is started; it waits for
//! the others.

use crate::work::Host;

#[test]
fn nothing_is_left() {
    let host = Host::alone();
    host.gc().unwrap();
    host.before().assert_same(&host).unwrap();
}
