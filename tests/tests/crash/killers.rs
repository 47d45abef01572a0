//! Who is killed: every kind of victim has its turns, in an order that the seed chooses.

use crate::fleet::LIMIT;
use crate::random::Random;
use nspawn_tests::host::agent::UNIT;
use nspawn_tests::processes::Part;
use nspawn_tests::{Rig, wait};
use std::collections::BTreeMap;

/// Parts that die together.
pub(crate) type Victims = &'static [Part];

const PLUGIN: Victims = &[Part::Plugin];
const HELPER: Victims = &[Part::Helper];
const BOTH: Victims = &[Part::Helper, Part::Plugin];
const AGENT: Victims = &[Part::Agent];
const ALL: Victims = &[Part::Plugin, Part::Helper, Part::Agent];

const WITHOUT_AGENT: [Victims; 5] = [PLUGIN, PLUGIN, HELPER, HELPER, BOTH];
const WITH_AGENT: [Victims; 2] = [AGENT, ALL];

/// Draws victims, and counts whom it has met.
#[derive(Default)]
pub(crate) struct Killers {
    /// What is left to be drawn, without and with the agent.
    decks: [Vec<Victims>; 2],
    struck: BTreeMap<Victims, usize>,
}

impl Killers {
    pub(crate) fn draw(&mut self, random: &mut Random, with_agent: bool) -> Victims {
        let full = if with_agent { &WITH_AGENT[..] } else { &WITHOUT_AGENT };
        let deck = &mut self.decks[usize::from(with_agent)];
        if deck.is_empty() {
            deck.extend_from_slice(full);
        }
        deck.swap_remove(random.below(deck.len()))
    }

    /// Kills them. One that just then is not there, because it starts, counts for nothing.
    pub(crate) fn kill(&mut self, rig: &Rig, victims: Victims) {
        let met: Vec<usize> = victims.iter().map(|part| rig.kill_part(*part).unwrap()).collect();
        *self.struck.entry(victims).or_default() += usize::from(met.iter().all(|count| *count > 0));
    }

    /// Every kind was really killed.
    pub(crate) fn assert_all_struck(&self) {
        eprintln!("killed: {:?}", self.struck);
        for victims in WITHOUT_AGENT.into_iter().chain(WITH_AGENT) {
            assert!(self.struck.get(victims).is_some_and(|count| *count > 0), "never: {victims:?}");
        }
    }
}

/// Brings back what does not come back by itself.
pub(crate) fn revive(rig: &Rig, victims: Victims) {
    if victims.contains(&Part::Agent) {
        // A start before PID 1 knows of the end would do nothing.
        wait::true_within("the agent's end", LIMIT, || Ok(rig.main_pid(UNIT)? == 0)).unwrap();
        rig.agent_start().unwrap();
    }
}
