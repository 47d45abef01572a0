//! More tasks than fit into one answer.

use crate::{HELPER, alone, next_life, started};
use nspawn_tests::hostile::{Client, Door, Handmade};
use proto::limits::LIST_PAGE;
use proto::name::TaskKey;
use proto::wire::{Answer, Page, Verb};
use std::sync::Mutex;
use std::time::Instant;

/// Tasks: a whole page and some.
const COUNT: usize = LIST_PAGE + 2;
/// Starts at once.
const HANDS: usize = 4;

fn page(client: &Client, after: Option<TaskKey>) -> Page {
    match client.ask(Verb::List(after)).unwrap() {
        Ok(Answer::Page(page)) => page,
        other => panic!("{other:?}"),
    }
}

fn assert_lists(client: &Client, keys: &[TaskKey]) {
    let first = page(client, None);
    assert_eq!((first.keys.as_slice(), first.more), (&keys[..LIST_PAGE], true));
    let rest = page(client, first.keys.last().cloned());
    assert_eq!((rest.keys.as_slice(), rest.more), (&keys[LIST_PAGE..], false));
}

#[test]
fn every_one_of_many_tasks_is_listed_and_found_again() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let begun = Instant::now();
    let tasks = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for hand in 0..HANDS {
            let tasks = &tasks;
            scope.spawn(move || {
                let client = Door::of(rig).unwrap().enter().unwrap();
                for _ in (hand..COUNT).step_by(HANDS) {
                    let task = Handmade::new(rig, "many").unwrap();
                    started(&client, &task.spec(&["/bin/sleep", "1000"]).unwrap());
                    tasks.lock().unwrap().push(task);
                }
            });
        }
    });
    let mut tasks = tasks.into_inner().unwrap();
    tasks.sort_by(|one, other| one.key.cmp(&other.key));
    eprintln!("{COUNT} tasks run after {:.1} s", begun.elapsed().as_secs_f64());
    let keys: Vec<TaskKey> = tasks.iter().map(|task| task.key.clone()).collect();
    assert_lists(&client, &keys);
    let containers = rig.containers();
    assert_eq!(containers.len(), COUNT);

    let client = next_life(rig);
    assert_lists(&client, &keys);
    assert_eq!(rig.containers(), containers);
    let journal = rig.journal(HELPER).unwrap();
    assert!(journal.contains(&format!("table rebuilt tasks={COUNT}")), "{journal}");
    std::thread::scope(|scope| {
        let mut tasks = tasks.into_iter();
        while tasks.len() > 0 {
            let part: Vec<Handmade<'_>> = tasks.by_ref().take(COUNT.div_ceil(HANDS)).collect();
            scope.spawn(move || {
                let client = Door::of(rig).unwrap().enter().unwrap();
                part.into_iter().for_each(|task| task.remove(&client).unwrap());
            });
        }
    });
    assert_eq!(page(&client, None).keys, []);
    eprintln!("and are gone after {:.1} s", begun.elapsed().as_secs_f64());
    host.world.assert_same(rig).unwrap();
}
