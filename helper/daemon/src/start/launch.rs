//! The task's unit and the first words of its launcher.
//!
//! A launcher that cannot be executed, or that is killed, never reports: each wait here ends with
//! the unit's job or its process as well.

use std::time::Duration;

use proto::error::Refusal;
use proto::plan::Plan;
use proto::step::Step;
use tokio::sync::oneshot::Receiver;

use crate::context::Context;
use crate::process::Process;
use crate::start::launcher_link::{Launcher, Prepared};
use crate::systemd::units::{names, task};
use crate::tasks::record::{Kind, Record};
use kernel::hook;
use policy::UnitSettings;

/// Time for a launcher that PID 1 has executed to report its pid.
const FIRST_REPORT: Duration = Duration::from_secs(10);
/// Time for the last report of a launcher that has ended: it lies in the socket.
const LAST_REPORT: Duration = Duration::from_millis(50);

/// Starts the task's unit; returns when the launcher has reported its pid.
pub(crate) async fn start_unit(
    context: &Context,
    record: &Record,
    plan: &Plan,
    settings: &UnitSettings,
) -> Result<(Launcher, Process), Refusal> {
    let name = names::task(record.unit());
    let failed = |step: Step, reason: String| Refusal::failed(step.name(), &name, reason);
    let (launcher, socket) = Launcher::pair().map_err(|e| failed(Step::Unit, e.to_string()))?;
    // Of the answer that this start was judged by, or a later one.
    let systemd = proto::systemd::major(&context.last_systemd.borrow());
    let job = context.bus.job_of(&name).await;
    let limits = &plan.isolation.limits;
    let stop = (record.kind == Kind::ProcessTwo).then_some(plan.kill_signal);
    let asked = task::start(&context.bus, record, settings, limits, stop, socket, systemd);
    hook::during(Step::Unit, asked).await.map_err(|reason| failed(Step::Unit, reason))?;
    let begun = await_report(launcher.begin(plan), job, &name);
    let pid = hook::during(Step::SendPlan, begun).await?;
    match Process::open(pid) {
        Ok(main) => Ok((launcher, main)),
        // It has read the plan and ended already.
        Err(error) => {
            await_last_report(&launcher, record).await?;
            Err(failed(Step::ReadPlan, format!("launcher: {error}")))
        }
    }
}

/// Waits for a report of a launcher whose unit has this start job.
pub(crate) async fn await_report<T>(
    report: impl Future<Output = Result<T, Refusal>>,
    job: Receiver<String>,
    unit: &str,
) -> Result<T, Refusal> {
    let silent = async {
        match job.await {
            Ok(result) if result != "done" => format!("start job {result}"),
            // Done, or the bus went away: the launcher's first report is its first act.
            _ => {
                tokio::time::sleep(FIRST_REPORT).await;
                "the launcher does not report".to_owned()
            }
        }
    };
    tokio::select! {
        report = report => report,
        reason = silent => {
            let reason = format!("{reason}; see journalctl -u {unit}");
            Err(Refusal::failed(Step::Unit.name(), unit, reason))
        }
    }
}

/// Waits until everything is prepared, or the launcher has ended.
pub(crate) async fn await_prepared(
    launcher: &Launcher,
    main: &Process,
    record: &Record,
) -> Result<Prepared, Refusal> {
    tokio::select! {
        prepared = launcher.receive_prepared() => prepared,
        _ = main.await_end() => await_last_report(launcher, record).await,
    }
}

/// The report of a launcher that has ended.
async fn await_last_report(launcher: &Launcher, record: &Record) -> Result<Prepared, Refusal> {
    tokio::time::timeout(LAST_REPORT, launcher.receive_prepared()).await.unwrap_or_else(|_| {
        let unit = names::task(record.unit());
        let reason = format!("the launcher was killed; see journalctl -u {unit}");
        Err(Refusal::failed(Step::Go.name(), unit, reason))
    })
}
