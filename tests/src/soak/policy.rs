//! The helper's own policy as the oracle's opponent.

use crate::oracle::compare::{Disagreement, Product, Tally, compare};
use crate::oracle::{Answer, Facts, TASKS_DEFAULT, Verdict};
use policy::Denial;
use proto::error::{Code, Refusal};
use proto::plan::{NetworkOwner, Unprotected};

/// The helper's decision in the oracle's words.
fn verdict(answer: Result<policy::Decision, Denial>) -> Verdict {
    match answer {
        Ok(decision) => Verdict::Allowed(Facts {
            image: decision.plan().image.to_string(),
            binds: decision.plan().files.binds.iter().map(|bind| bind.source.to_string()).collect(),
            unmapped: decision.plan().files.unprotected != Unprotected::Refuse,
            tasks: decision.unit().resources.tasks_max.unwrap_or(TASKS_DEFAULT),
            network: decision.network().cloned(),
            container_network: decision.network_owner() == Some(NetworkOwner::Container),
        }),
        Err(Denial { refusal: Refusal { code: Code::Invalid, .. }, .. }) => Verdict::Invalid,
        Err(Denial { refusal: Refusal { code: Code::Policy, .. }, .. }) => Verdict::Policy,
        Err(denial) => Verdict::Other(denial.refusal.to_string()),
    }
}

fn answer(answer: Result<(), Denial>) -> Answer {
    match answer {
        Ok(()) => Answer::Allowed,
        Err(Denial { refusal: Refusal { code: Code::Invalid, .. }, .. }) => Answer::Invalid,
        Err(Denial { refusal: Refusal { code: Code::Policy, .. }, .. }) => Answer::Policy,
        Err(denial) => Answer::Other(denial.refusal.to_string()),
    }
}

/// Reads a policy file as the helper does.
///
/// # Errors
/// Why it is refused.
pub fn product(text: &str) -> Result<Product, String> {
    let policy = std::rc::Rc::new(policy::parse(text)?);
    let same = std::rc::Rc::clone(&policy);
    Ok((
        Box::new(move |spec| verdict(policy::decide(spec.clone(), &policy))),
        Box::new(move |spec| answer(policy::check_exec(spec, &same))),
    ))
}

/// Compares the helper's policy with the oracle.
///
/// # Errors
/// Where they differ.
pub fn run(seed: u64, tries: u64) -> Result<Tally, Box<Disagreement>> {
    compare(seed, tries, product)
}
