//! Which addresses tasks get: a pool of each family, and each task's place in it.
//!
//! Pure. The same host and the same task get the same addresses, unless somebody else has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proto::link::Ends;
use proto::name::TaskKey;

/// Length of the pool's prefix where the policy names none: 4,096 addresses.
pub(crate) const PREFIX_4: u8 = 20;
/// The same of IPv6.
pub(crate) const PREFIX_6: u8 = 64;
/// Where the pool is taken from: private networks (RFC 1918), because programs trust peers there,
/// and last what is for tests of networks (RFC 2544).
const BLOCKS: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
];
/// Place of the gateway in each pool.
const GATEWAY: u32 = 1;

/// The pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pools {
    pub(crate) v4: (Ipv4Addr, u8),
    /// `None` on a host without IPv6.
    pub(crate) v6: Option<(Ipv6Addr, u8)>,
}

/// Addresses that a job names.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fixed {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Pools {
    /// Number of places; the first and the last are none, as in any network.
    fn size(&self) -> u32 {
        1 << (32 - u32::from(self.v4.1))
    }

    /// The pools, where each place of the first has one in the second.
    pub(crate) fn checked(self) -> Result<Self, String> {
        match self.v6 {
            Some((_, bits)) if 128 - u32::from(bits) < 32 - u32::from(self.v4.1) => Err(format!(
                "[network] pool_ipv6 of the policy file has fewer addresses than the IPv4 pool: use \
                 a prefix of at most {} bits",
                96 + self.v4.1
            )),
            _ => Ok(self),
        }
    }

    /// Whether an address is of a pool.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => mask_4(v4, self.v4.1) == self.v4.0,
            IpAddr::V6(v6) => self
                .v6
                .is_some_and(|(pool, bits)| v6.to_bits() & mask_of(128, bits) == pool.to_bits()),
        }
    }

    /// The addresses of a task: those that its job names, else those that follow from its own name,
    /// or the next that are free. Of a job that names one family alone, the other has the same
    /// place in its pool.
    pub(crate) fn place(
        &self,
        key: &TaskKey,
        wanted: Fixed,
        is_taken: impl Fn(IpAddr) -> bool,
    ) -> Option<(Ends<Ipv4Addr>, Option<Ends<Ipv6Addr>>)> {
        let count = self.size().checked_sub(GATEWAY + 2).filter(|count| *count > 0)?;
        let name = [&key.alloc.0[..], key.task.as_str().as_bytes()].concat();
        let first = match (wanted.v4, wanted.v6, self.v6) {
            (Some(v4), ..) => v4.to_bits().wrapping_sub(self.v4.0.to_bits()),
            (None, Some(v6), Some((pool, _))) => {
                u32::try_from(v6.to_bits().wrapping_sub(pool.to_bits())).unwrap_or(0)
            }
            _ => u32::try_from(hash(&name) % u64::from(count)).unwrap_or(0) + GATEWAY + 1,
        };
        let first = first.saturating_sub(GATEWAY + 1) % count;
        let at = |next: u32| {
            let place = GATEWAY + 1 + (first + next) % count;
            let v6 = |pool| wanted.v6.unwrap_or_else(|| at_6(pool, place));
            (
                ends_4(wanted.v4.unwrap_or_else(|| at_4(self.v4.0, place)), self.v4.1),
                self.v6.map(|(pool, prefix)| ends_6(v6(pool), prefix)),
            )
        };
        let is_free = |(v4, v6): &(Ends<Ipv4Addr>, Option<Ends<Ipv6Addr>>)| {
            !is_taken(v4.task.into()) && !v6.is_some_and(|v6| is_taken(v6.task.into()))
        };
        (0..count).map(at).find(is_free)
    }

    /// Why no task can have this address of a pool, whoever has it.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), String> {
        let (first, prefix) = match (address, self.v6) {
            (IpAddr::V4(_), _) => (IpAddr::from(self.v4.0), self.v4.1),
            (IpAddr::V6(_), Some((pool, prefix))) => (IpAddr::from(pool), prefix),
            (IpAddr::V6(_), None) => return Err("this host has no IPv6".to_owned()),
        };
        if !self.holds(address) {
            return Err(format!("is not in {first}/{prefix}, the pool of this host's tasks"));
        }
        let (place, last) = match (address, first) {
            (IpAddr::V4(v4), IpAddr::V4(first)) => {
                (u128::from(v4.to_bits() - first.to_bits()), Some(u128::from(self.size() - 1)))
            }
            (IpAddr::V6(v6), IpAddr::V6(first)) => (v6.to_bits() - first.to_bits(), None),
            _ => (0, None),
        };
        match place {
            0 => Err(format!("is the name of the network {first}/{prefix}")),
            1 => Err("is the host's end of all links".to_owned()),
            _ if last == Some(place) => {
                Err(format!("is the broadcast address of {first}/{prefix}"))
            }
            _ => Ok(()),
        }
    }
}

/// Ends of a link by the task's address and the length of the pool's prefix.
pub(crate) fn ends_4(task: Ipv4Addr, prefix: u8) -> Ends<Ipv4Addr> {
    let pool = mask_4(task, prefix);
    Ends { task, gateway: at_4(pool, GATEWAY), pool, prefix }
}

/// The same of IPv6.
pub(crate) fn ends_6(task: Ipv6Addr, prefix: u8) -> Ends<Ipv6Addr> {
    let pool = Ipv6Addr::from_bits(task.to_bits() & mask_of(128, prefix));
    Ends { task, gateway: at_6(pool, GATEWAY), pool, prefix }
}

/// An IPv4 pool where the host has neither an address nor a route, by its machine id.
pub(crate) fn choose_4(machine: &[u8], routes: &[(IpAddr, u8)]) -> (Ipv4Addr, u8) {
    let is_free = |block: (Ipv4Addr, u8)| !routes.iter().any(|route| overlaps(block, *route));
    let [.., last] = BLOCKS;
    let (block, length) = BLOCKS.into_iter().find(|block| is_free(*block)).unwrap_or(last);
    let count = 1_u32 << (PREFIX_4 - length);
    let wanted = u32::try_from(hash(machine) % u64::from(count)).unwrap_or(0);
    let pool = |next: u32| {
        let place = (wanted + next) % count;
        (Ipv4Addr::from_bits(block.to_bits() + (place << (32 - PREFIX_4))), PREFIX_4)
    };
    (0..count).map(pool).find(|pool| is_free(*pool)).unwrap_or_else(|| pool(0))
}

/// Refuses a pool of the policy in which the host has addresses or routes. A route that leads to
/// more than the pool may be there.
pub(crate) fn check_named(pool: (Ipv4Addr, u8), routes: &[(IpAddr, u8)]) -> Result<(), String> {
    let inside = |route: &&(IpAddr, u8)| route.1 >= pool.1 && overlaps(pool, **route);
    match routes.iter().find(inside) {
        None => Ok(()),
        Some((to, bits)) => Err(format!(
            "[network] pool {}/{} of the policy file holds {to}/{bits}, which the host has an address \
             or a route in: name another one",
            pool.0, pool.1
        )),
    }
}

/// The pool that tasks have had before, unless the host has got a route there meanwhile: the first
/// choice depends on routes that come and go, such as that of a bridge.
pub(crate) fn kept_4(pools: &[(IpAddr, u8)], routes: &[(IpAddr, u8)]) -> Option<(Ipv4Addr, u8)> {
    pools.iter().find_map(|pool| match *pool {
        (IpAddr::V4(address), PREFIX_4) => {
            let pool = (address, PREFIX_4);
            (!routes.iter().any(|route| overlaps(pool, *route))).then_some(pool)
        }
        _ => None,
    })
}

/// An IPv6 pool of the host's own: a unique local network (RFC 4193) by its machine id.
pub(crate) fn choose_6(machine: &[u8]) -> (Ipv6Addr, u8) {
    let global = u128::from(hash(machine) >> 24);
    (Ipv6Addr::from_bits((0xfd << 120) | (global << 80)), PREFIX_6)
}

/// Whether a route leads to a part of a block, or a part of it; a default route does not count.
pub(crate) fn overlaps(block: (Ipv4Addr, u8), (to, length): (IpAddr, u8)) -> bool {
    let IpAddr::V4(to) = to else { return false };
    let length = length.min(block.1);
    length > 0 && mask_4(block.0, length) == mask_4(to, length)
}

fn mask_4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::try_from(mask_of(32, prefix)).unwrap_or(u32::MAX);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

/// A mask of so many bits, in the lower `width` bits.
fn mask_of(width: u32, prefix: u8) -> u128 {
    let all = u128::MAX >> (128 - width);
    all & !(all.checked_shr(prefix.into()).unwrap_or(0))
}

fn at_4(pool: Ipv4Addr, place: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(pool.to_bits().saturating_add(place))
}

fn at_6(pool: Ipv6Addr, place: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(pool.to_bits().saturating_add(place.into()))
}

/// FNV-1a: the same in every build, unlike the standard library's.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::{AllocId, Instance, TaskName};

    const MACHINE: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn route(text: &str, length: u8) -> (IpAddr, u8) {
        (text.parse().unwrap(), length)
    }

    #[test]
    fn a_pool_lies_where_the_host_has_nothing() {
        let chosen = |routes: &[(IpAddr, u8)]| choose_4(MACHINE, routes).0.octets();
        assert_eq!(chosen(&[])[0], 10);
        assert_eq!(choose_4(MACHINE, &[]), choose_4(MACHINE, &[]), "stable");
        assert_ne!(choose_4(MACHINE, &[]), choose_4(b"another", &[]));
        // A default route is everywhere.
        assert_eq!(
            chosen(&[route("0.0.0.0", 0), route("127.0.0.0", 8), route("fe80::", 64)])[0],
            10
        );
        assert_eq!(chosen(&[route("10.200.0.0", 16)])[..1], [172]);
        let most = [route("10.0.0.7", 32), route("172.16.0.0", 12), route("192.168.0.0", 24)];
        assert_eq!(chosen(&most)[..1], [198]);
        // In the last block the next free one; where there is none, the first.
        let first = choose_4(MACHINE, &most);
        let taken = [&most[..], &[route(&first.0.to_string(), 24)]].concat();
        let second = choose_4(MACHINE, &taken);
        assert_ne!(first, second);
        assert!(!overlaps(second, route(&first.0.to_string(), 24)));
        assert_eq!(choose_4(MACHINE, &[&most[..], &[route("198.0.0.0", 4)]].concat()), first);
    }

    #[test]
    fn a_pool_stays_where_it_is_unless_somebody_else_comes_there() {
        let pools = [route("fd00::", 64), route("10.0.0.0", 24), route("172.31.16.0", 20)];
        let kept = Some((Ipv4Addr::new(172, 31, 16, 0), 20));
        assert_eq!(kept_4(&pools, &[route("172.26.64.0", 20), route("0.0.0.0", 0)]), kept);
        assert_eq!(kept_4(&pools, &[route("172.31.17.0", 24)]), None);
        assert_eq!(kept_4(&[], &[]), None);
    }

    #[test]
    fn a_named_pool_is_nobody_elses_and_fits() {
        let named = |route| check_named((Ipv4Addr::new(192, 168, 1, 0), 24), &[route]);
        assert!(named(route("192.168.1.7", 32)).unwrap_err().contains("192.168.1.7/32"));
        assert!(named(route("192.168.1.0", 24)).is_err());
        assert!(named(route("192.168.0.0", 16)).is_ok() && named(route("0.0.0.0", 0)).is_ok());
        let pools = |bits4, bits6| {
            let v6 =
                Some((Ipv6Addr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), bits6));
            Pools { v4: (Ipv4Addr::new(10, 0, 0, 0), bits4), v6 }
        };
        assert!(pools(16, 112).checked().is_ok() && pools(20, 64).checked().is_ok());
        assert!(pools(15, 112).checked().unwrap_err().contains("at most 111 bits"));
        let holds = |text: &str| pools(20, 64).holds(text.parse().unwrap());
        assert!(holds("10.0.15.255") && holds("fd00::9"));
        assert!(!holds("10.0.16.0") && !holds("fd00:0:0:1::") && !holds("127.0.0.1"));
    }

    fn key(number: u8) -> TaskKey {
        let task = TaskName::new("web").unwrap();
        TaskKey { alloc: AllocId([number; 16]), task, instance: Instance(number.into()) }
    }

    #[test]
    fn tasks_have_their_own_addresses_and_keep_them() {
        let pools = Pools { v4: choose_4(MACHINE, &[]), v6: Some(choose_6(MACHINE)) };
        let any = Fixed::default();
        let (v4, v6) = pools.place(&key(1), any, |_| false).unwrap();
        let again = TaskKey { instance: Instance(9), ..key(1) };
        assert_eq!(pools.place(&again, any, |_| false).unwrap(), (v4, v6));
        assert_ne!(pools.place(&key(2), any, |_| false).unwrap().0.task, v4.task);
        let v6 = v6.unwrap();
        for taken in [IpAddr::from(v4.task), v6.task.into()] {
            let next = pools.place(&key(1), any, |address| address == taken).unwrap();
            assert_ne!((next.0.task, next.1.unwrap().task), (v4.task, v6.task));
        }
        assert_eq!(pools.place(&key(1), any, |_| true), None);
        // From the addresses alone the rest is found again.
        assert_eq!((ends_4(v4.task, v4.prefix), ends_6(v6.task, v6.prefix)), (v4, v6));
        assert_eq!(v6.pool.octets()[0], 0xfd);
        assert_eq!(
            v6.task.to_bits() - v6.pool.to_bits(),
            u128::from(v4.task.to_bits() - v4.pool.to_bits())
        );
    }

    #[test]
    fn every_place_of_a_pool_is_used_and_no_other() {
        let pools = Pools { v4: (Ipv4Addr::new(10, 9, 8, 0), 28), v6: None };
        let mut taken: Vec<Ipv4Addr> = Vec::new();
        let place = |taken: &[Ipv4Addr]| {
            let is_taken = |address| taken.iter().any(|other| IpAddr::from(*other) == address);
            pools.place(&key(7), Fixed::default(), is_taken)
        };
        while let Some((v4, None)) = place(&taken) {
            assert!((2..=14).contains(&v4.task.octets()[3]), "{}", v4.task);
            taken.push(v4.task);
        }
        assert_eq!(taken.len(), 13);
    }

    #[test]
    fn a_job_may_name_any_address_of_the_pool_that_a_task_can_have() {
        let v6_pool: Ipv6Addr = "fd64::".parse().unwrap();
        let pools = Pools { v4: (Ipv4Addr::new(10, 64, 0, 0), 20), v6: Some((v6_pool, 64)) };
        let check = |text: &str| pools.check(text.parse().unwrap());
        for good in ["10.64.0.2", "10.64.15.254", "fd64::2", "fd64::ffff:ffff:ffff:ffff"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, rule) in [
            ("10.64.0.0", "name of the network 10.64.0.0/20"),
            ("10.64.0.1", "the host's end"),
            ("10.64.15.255", "broadcast address of 10.64.0.0/20"),
            ("10.64.16.2", "is not in 10.64.0.0/20"),
            ("10.63.255.255", "is not in 10.64.0.0/20"),
            ("fd64::", "name of the network fd64::/64"),
            ("fd64::1", "the host's end"),
            ("fd64:0:0:1::2", "is not in fd64::/64"),
        ] {
            assert!(check(bad).unwrap_err().contains(rule), "{bad}: {:?}", check(bad));
        }
        let only_4 = Pools { v6: None, ..pools };
        assert!(only_4.check("fd64::2".parse().unwrap()).unwrap_err().contains("no IPv6"));

        let (v4, v6) = (Ipv4Addr::new(10, 64, 3, 7), "fd64::307".parse::<Ipv6Addr>().unwrap());
        let place = |v4, v6, taken: &[IpAddr]| {
            let place = pools.place(&key(1), Fixed { v4, v6 }, |it| taken.contains(&it));
            place.map(|(v4, v6)| (v4.task, v6.unwrap().task))
        };
        assert_eq!(place(Some(v4), None, &[]), Some((v4, v6)));
        assert_eq!(place(None, Some(v6), &[]), Some((v4, v6)));
        let far = "fd64::1:0:0:0".parse().unwrap();
        assert_eq!(place(Some(v4), Some(far), &[]), Some((v4, far)));
        assert_eq!(place(None, Some(far), &[]).unwrap().1, far);
        // Another task has the same place by its name: the other family goes elsewhere.
        let next = place(Some(v4), None, &[v6.into()]).unwrap();
        assert_eq!(next, (v4, "fd64::308".parse().unwrap()));
        assert_eq!(place(Some(v4), None, &[v4.into()]), None);
    }
}
