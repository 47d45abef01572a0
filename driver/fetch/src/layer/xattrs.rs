//! Extended attributes that a layer keeps.
//!
//! For: `user.*`, file capabilities and POSIX access control lists.
//! Trusts: nothing; values that the kernel reads are checked for their form.
//! Never: keeps `trusted.*`, with which a layer could steer overlayfs, or labels of security
//! modules, which mean something on the host that made them.

use std::collections::BTreeMap;

use super::acl;
use crate::bounds::Bounds;
use crate::erofs::inode::encode_xattrs;
use crate::error::{Error, Result, show};
use crate::tar::member::{Kind, Member};

const NAME_MAX: usize = 255;

/// What became of a member's attributes.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Encoded for EROFS.
    pub(crate) encoded: Box<[u8]>,
    /// Permissions; without a list that was dropped, the group's are narrower.
    pub(crate) mode: u16,
    /// Number of attributes that were dropped.
    pub(crate) dropped: u64,
}

/// Chooses among the attributes of `member`.
pub(crate) fn keep(member: &Member, bounds: &Bounds) -> Result<Kept> {
    let mut kept = BTreeMap::new();
    let mut mode = member.mode;
    let mut dropped = 0;
    for (name, value) in &member.xattrs {
        if name.len() > NAME_MAX || name.contains(&0) || name.ends_with(b".") {
            return Err(Error::archive(format!("the attribute name {} is malformed", show(name))));
        }
        let keep = match name.as_slice() {
            // The kernel has no `user.*` on other types.
            name if name.starts_with(b"user.") => {
                matches!(member.kind, Kind::Regular | Kind::Directory)
            }
            b"security.capability" => member.kind == Kind::Regular && is_capability(value),
            acl::ACCESS | acl::DEFAULT => may_have_acl(member, name) && acl::is_encoded(value),
            _ => false,
        };
        if keep {
            kept.insert(name.clone(), value.clone());
        } else {
            dropped += 1;
        }
    }
    dropped += keep_text_lists(member, &mut kept, &mut mode)?;
    if let Some(list) = kept.get(acl::ACCESS) {
        mode = (mode & !0o777) | acl::mode_of(list);
        // The kernel keeps no list that the mode can express.
        if !acl::is_extended(list) {
            kept.remove(acl::ACCESS);
        }
    }
    let encoded =
        encode_xattrs(&kept).filter(|encoded| encoded.len() <= bounds.xattrs).ok_or_else(|| {
            Error::Bound(format!("its attributes take more than {} bytes", bounds.xattrs))
        })?;
    Ok(Kept { encoded, mode, dropped })
}

/// Adds the lists that the archive has as text; how many were dropped.
fn keep_text_lists(
    member: &Member,
    kept: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    mode: &mut u16,
) -> Result<u64> {
    let mut dropped = 0;
    let lists = [(acl::ACCESS, &member.acl_access), (acl::DEFAULT, &member.acl_default)];
    for (name, list) in lists {
        let Some(text) = list else { continue };
        if !may_have_acl(member, name) {
            dropped += 1;
            continue;
        }
        match acl::parse(text)? {
            acl::Parsed::Encoded(value) => {
                if kept.insert(name.to_vec(), value.clone()).is_some_and(|other| other != value) {
                    return Err(Error::archive("it has two different access control lists"));
                }
            }
            // bsdtar and GNU tar may write the attribute as well, which has numbers.
            acl::Parsed::UnknownNames { .. } if kept.contains_key(name) => {}
            acl::Parsed::UnknownNames { group } => {
                dropped += 1;
                if name == acl::ACCESS {
                    *mode = (*mode & !0o070) | (*mode & (u16::from(group) << 3));
                }
            }
        }
    }
    Ok(dropped)
}

fn may_have_acl(member: &Member, name: &[u8]) -> bool {
    match member.kind {
        Kind::Directory => true,
        Kind::Regular | Kind::Fifo => name == acl::ACCESS,
        _ => false,
    }
}

/// Whether `value` is a `struct vfs_cap_data` of version 2 or a `vfs_ns_cap_data` of version 3
/// (Linux, include/uapi/linux/capability.h).
fn is_capability(value: &[u8]) -> bool {
    let version = crate::bytes::le32(value, 0).map(|magic| magic >> 24);
    matches!((version, value.len()), (Some(2), 20) | (Some(3), 24))
}
