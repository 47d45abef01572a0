//! A task's claim: its entry in the table, made at once when nothing stands in the way, and its uid
//! range.
//!
//! Never waits between the checks and the entry: no other start can come between.

use std::path::PathBuf;
use std::rc::Rc;

use proto::error::{Code, Refusal};
use proto::limits::RANGE_WIDTH;
use proto::name::AllocId;
use proto::plan::Range;
use proto::step::Step;
use proto::task_spec::Users;

use crate::context::Context;
use crate::network::allocate::{allocate, check_attached};
use crate::start::preflight;
use crate::tasks::record::Record;
use crate::tasks::table::Entry;
use crate::tasks::uid_range;
use kernel::hook;
use policy::Decision;

/// Enters the task into the table, or refuses with what stands in the way.
pub(crate) fn enter(context: &Rc<Context>, decision: &Decision) -> Result<Record, Refusal> {
    let mut record = Record::new(decision.plan());
    check_free(context, &record)?;
    let link = decision.network().map(|wanted| allocate(context, &record.key, wanted));
    record.link = link.transpose()?;
    if let Some(attached) = &record.attached {
        check_attached(context, attached)?;
    }
    record.users = allocate_users(context, record.key.alloc, decision.users())?;
    let entry = Entry::new(record.clone(), crate::now_ms(), true);
    context.table.borrow_mut().insert(entry);
    Ok(record)
}

/// Refuses a task that another one, or its own removal, stands in the way of.
fn check_free(context: &Context, record: &Record) -> Result<(), Refusal> {
    let busy = |object: String, reason: String| {
        Err(Refusal::new(Code::Busy, Step::Decide.name(), object, reason))
    };
    let (table, key) = (context.table.borrow(), &record.key);
    if table.holds(record.unit()) {
        return busy(key.to_string(), "this run exists already: remove it first".into());
    }
    // Two of them would share log FIFOs, directories and a layer that is kept for the task.
    if let Some(other) = table.other_run(key) {
        return busy(key.to_string(), format!("run {other} of it exists: remove it first"));
    }
    if context.removing.borrow().contains(&record.unit()) {
        return busy(key.to_string(), "its removal is under way".into());
    }
    let most = context.policy().limits.max_tasks.0;
    if table.len() as u64 >= most {
        return busy("tasks".into(), format!("{most} at once ([limits] max_tasks)"));
    }
    if let Some((holder, why)) = table.holder(record) {
        return busy(format!("image {}", record.image), format!("task {holder} {why}"));
    }
    Ok(())
}

/// The task's uid range, locked where it is one of systemd-nspawn's grid.
fn allocate_users(
    context: &Context,
    alloc: AllocId,
    users: Users,
) -> Result<Option<Range>, Refusal> {
    let take = |wanted| hook::run(Step::Range, || context.ranges.borrow_mut().take(alloc, wanted));
    Ok(match users {
        Users::Pick => {
            // The one that the layers kept for the allocation belong to, if there are any.
            Some(Range { base: take(kernel::kept_layers::base(alloc))?, width: RANGE_WIDTH })
        }
        Users::Fixed { base, width } => {
            if uid_range::is_locked(base) {
                take(Some(base))?;
            }
            Some(Range { base, width })
        }
        Users::Identity => Some(Range { base: 0, width: RANGE_WIDTH }),
        Users::Host => None,
    })
}

/// Notes the device of the file system of all allocations. Nothing is looked at before the decision.
pub(crate) async fn note_device(context: &Context, record: &mut Record) {
    record.allocs_device = preflight::find_device(PathBuf::from(&record.allocs)).await;
    if let Some(entry) = context.table.borrow_mut().get_mut(&record.key) {
        entry.record.allocs_device = record.allocs_device;
    }
}
