//! What is wrong in a configuration, and how a job with problems is refused.
//!
//! Values of variables, words of commands and credentials never come here.

use std::fmt;

use crate::error::Failure;

/// Something wrong in a configuration: which key, which value, which rule, what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    key: String,
    value: Option<String>,
    rule: String,
    remedy: Option<String>,
}

impl Problem {
    /// The key and the rule that it breaks.
    pub(crate) fn new(key: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, rule: rule.into(), remedy: None }
    }

    /// Shows the value. Not for values of variables and words of commands.
    pub(crate) fn value(mut self, value: impl fmt::Debug) -> Self {
        self.value = Some(format!("{value:?}"));
        self
    }

    /// Shows a value that is written as HCL already.
    pub(crate) fn value_as_hcl(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// The key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What to write instead.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}", self.rule)?;
        if let Some(remedy) = &self.remedy {
            write!(f, " ({remedy})")?;
        }
        Ok(())
    }
}

/// One final error for all problems of a job; `Ok` when there are none.
pub(crate) fn judge(problems: &[Problem]) -> Result<(), Failure> {
    match problems {
        [] => Ok(()),
        [only] => Err(Failure::permanent(format!("job not valid: {only}"))),
        several => {
            let list: Vec<String> = several
                .iter()
                .enumerate()
                .map(|(index, problem)| format!("[{}] {problem}", index + 1))
                .collect();
            Err(Failure::permanent(format!(
                "job not valid, {} problems: {}",
                several.len(),
                list.join("; ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named() {
        assert_eq!(judge(&[]), Ok(()));
        let problems = [
            Problem::new("image", "is required"),
            Problem::new("boot", "excludes process_two").value(true).remedy("set boot = false"),
        ];
        let failure = judge(&problems).unwrap_err();
        assert_eq!(
            failure.text(),
            "job not valid, 2 problems: [1] image: is required; \
             [2] boot = true: excludes process_two (set boot = false)"
        );
    }
}
