//! `aula config print|check`: the configuration in force, and what is wrong with it.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;

use crate::config::{DEFAULT_FILE, Loaded, Overrides};

/// Nothing was wrong.
const DONE: u8 = 0;
/// The configuration is wrong, which is a mistake in how aula is called.
const USAGE: u8 = 2;

/// Show or check the configuration
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the configuration in force, with where each value was set unless it is the default
    Print {
        /// Print the commented default file instead, which explains every key
        #[arg(long)]
        default: bool,
    },
    /// Say whether the configuration is valid, or everything that is wrong with it
    Check,
}

/// What the global flags and the process say.
#[derive(Debug)]
pub struct Input<'a> {
    /// `--config`
    pub file: Option<&'a Path>,
    /// The environment variables; [`crate::config::environment`] has the process's.
    pub environment: Vec<(String, String)>,
    pub flags: &'a Overrides,
    /// `--output json`
    pub json: bool,
    /// `--quiet`
    pub quiet: bool,
}

/// Runs the command: results go to `out`, what is wrong with the configuration to `err`, one problem a line. Returns the exit
/// code: 0, or 2 if the configuration is wrong.
///
/// # Errors
/// If `out` or `err` can't be written to; the source is the [`std::io::Error`], so a broken pipe can be told apart.
pub fn run(args: &Args, input: Input<'_>, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<u8> {
    if let Command::Print { default: true } = args.command {
        return write(out, DEFAULT_FILE);
    }
    let loaded = match Loaded::load(input.file, input.environment.into_iter(), input.flags) {
        Ok(loaded) => loaded,
        Err(error) => {
            write(err, &format!("{error}\n"))?;
            return Ok(USAGE);
        }
    };
    let text = match (&args.command, input.json) {
        (Command::Check, _) if input.quiet => return Ok(DONE),
        (Command::Check, false) => "configuration is valid\n".to_owned(),
        (Command::Check, true) => "{\"valid\":true}\n".to_owned(),
        (Command::Print { .. }, false) => loaded.to_yaml(),
        (Command::Print { .. }, true) => format!("{:#}\n", loaded.to_json()),
    };
    write(out, &text)
}

fn write(out: &mut dyn Write, text: &str) -> anyhow::Result<u8> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write the result")?;
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// The exit code, stdout and stderr.
    fn aula(words: &[&str], file: &str, json: bool, quiet: bool) -> (u8, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aula.yaml");
        std::fs::write(&path, file).unwrap();
        let args = Cli::try_parse_from([&["config"], words].concat()).unwrap().args;
        let input = Input { file: Some(&path), environment: Vec::new(), flags: &Overrides::default(), json, quiet };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&args, input, &mut out, &mut err).unwrap();
        let directory = format!("{}/", directory.path().display());
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(&directory, "");
        (code, text(out), text(err))
    }

    #[test]
    fn verify_cli() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn check() {
        let valid = "configuration is valid\n".to_owned();
        assert_eq!(aula(&["check"], "log: {level: debug}\n", false, false), (0, valid, String::new()));
        assert_eq!(aula(&["check"], "", false, true), (0, String::new(), String::new()));
        assert_eq!(aula(&["check"], "", true, false), (0, "{\"valid\":true}\n".to_owned(), String::new()));
    }

    #[test]
    fn problems_are_on_stderr_and_exit_2() {
        let file = "server:\n  lisen: x\nstore: {readers: 0}\n";
        let want = "aula.yaml:2: unknown key \"server.lisen\"; did you mean \"server.listen\"?\n\
                    aula.yaml:3: store.readers is 0, but must be 1 to 256\n";
        for (command, quiet) in [("check", false), ("check", true), ("print", false)] {
            assert_eq!(aula(&[command], file, false, quiet), (2, String::new(), want.to_owned()));
        }
    }

    #[test]
    fn print() {
        let (code, out, err) = aula(&["print"], "log: {level: debug}\n", false, false);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("\n  level: debug  # aula.yaml:1\n"), "{out}");

        let (code, out, _) = aula(&["print"], "log: {level: debug}\n", true, false);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &json["config"]["log"]["level"]), (0, &"debug".into()));
        assert_eq!(json["sources"], serde_json::json!({"log.level": "aula.yaml:1"}));
    }

    #[test]
    fn print_default_needs_no_valid_configuration() {
        let (code, out, err) = aula(&["print", "--default"], "nonsense: 1\n", false, false);
        assert_eq!((code, out.as_str(), err.as_str()), (0, DEFAULT_FILE, ""));
    }

    #[test]
    fn a_broken_pipe_is_an_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let args = Cli::try_parse_from(["config", "print", "--default"]).unwrap().args;
        let input =
            Input { file: None, environment: Vec::new(), flags: &Overrides::default(), json: false, quiet: false };
        let error = run(&args, input, &mut Closed, &mut Vec::new()).unwrap_err();
        assert_eq!(
            error.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
            Some(std::io::ErrorKind::BrokenPipe)
        );
    }
}
