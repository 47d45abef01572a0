//! `images`: the store of layers, which images of names lie in it, and new ones from files.
//!
//! | module | idea |
//! |---|---|
//! | `verbs` | the command line, and what is printed |
//! | `import` | from a file to a name: copy, digest, conversion, commit |
//! | `convert` | the unit of PID 1 in which the archive is read |
//! | `store` | the directories: what is unfinished, what counts, what nobody needs |

mod convert;
mod import;
mod store;
mod verbs;

pub(super) use verbs::run;
