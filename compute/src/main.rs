//! The agent's process.

use std::path::PathBuf;
use std::process::ExitCode;

use api::Grade;
use clap::{Parser, Subcommand};
use compute::config::Config;
use compute::failure::Failure;
use compute::{create, inside, run};
use service::config::Source;

/// The agent beside one stock PostgreSQL. Runs as root: it makes namespaces and mounts, and runs
/// PostgreSQL as another user.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
The configuration is one TOML file; docs/operations.md lists its names.
Exit codes: 0 done, 2 fix the request, 3 data damaged, 4 key unavailable, 5 retry, 6 another
compute runs this timeline, 70 a bug."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the first data directory of a timeline, and imports it into the pageserver
    Create {
        #[command(flatten)]
        configuration: Source,
        /// The file whose first line is the password of the superuser `postgres`.
        #[arg(long)]
        password_file: PathBuf,
    },
    /// Runs PostgreSQL on a timeline until SIGTERM
    Run {
        #[command(flatten)]
        configuration: Source,
    },
    /// The watchdog, started by the agent itself.
    #[command(hide = true)]
    Inside(inside::Arguments),
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        // One thread per thing that must not wait for another, and no runtime.
        Command::Inside(arguments) => {
            return match inside::run(&arguments) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("compute inside: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        Command::Create {
            configuration,
            password_file,
        } => begin(&configuration, async |config, program| {
            let imported = create::create(&config, &password_file, program).await?;
            println!("{}", serde_json::json!(imported));
            Ok(())
        }),
        Command::Run { configuration } => begin(&configuration, async |config, program| {
            Box::pin(run::run(config, program)).await
        }),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("compute: {failure}\n{}", hint(failure.grade()));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn begin(
    configuration: &Source,
    command: impl AsyncFnOnce(Config, PathBuf) -> Result<(), Failure>,
) -> Result<(), Failure> {
    service::init();
    service::log::init();
    let config = configuration.load()?;
    let io = |what| move |source| Failure::Io { what, source };
    service::no_cores().map_err(io("cannot keep cores from being written"))?;
    let program = std::env::current_exe().map_err(io("cannot find this program"))?;
    let runtime = tokio::runtime::Runtime::new().map_err(io("cannot start"))?;
    let ended = runtime.block_on(command(config, program));
    // A thread that still unpacks a backup writes to a disk that is gone: nobody waits for it.
    runtime.shutdown_background();
    ended
}

const fn hint(grade: Grade) -> &'static str {
    match grade {
        Grade::Retry => "What to do: the same call again, in a moment.",
        Grade::RetryElsewhere => {
            "What to do: find out which other compute runs this timeline; one at a time may."
        }
        Grade::FixRequest => "What to do: change the configuration or the request as it says.",
        Grade::KeyUnavailable => {
            "What to do: see that the key can be used and keymanagers be reached. Nothing is lost."
        }
        Grade::DataDamaged => "What to do: stop, and compare safekeepers and pageserver.",
        Grade::Bug => "What to do: report it, with the log.",
    }
}
