//! `run`: creates a Task from flags ([`spec`], [`selector`], [`input`]) and follows its Run.

mod input;
mod selector;
mod spec;

pub(crate) use spec::{random_letters, random_name};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use std::collections::BTreeSet;

use serde_json::json;

use super::flags::context_flags;
use super::fold;
use super::once::{self, Started};
use crate::args::{Fold, RunArgs};
use crate::client::Client;
use crate::exit::{ExitResult, Failure, INTERRUPTED, OK};
use crate::follow::{
    FollowRequest, FollowedRun, LogOptions, RunSelector, advice, exit_code, follow, follow_silently, report,
    summarize,
};
use crate::interrupt::{Interruptible, Interrupts};
use crate::output::color::{StdStream, is_terminal};
use crate::output::format::{StreamFormat, note, print};
use crate::output::sink::print_json_line;
use crate::output::text::Text;
use crate::view::Task;

pub(super) fn execute<'a>(
    client: &'a Client,
    namespace: &'a str,
    args: &'a RunArgs,
) -> LocalBoxFuture<'a, ExitResult> {
    executed(client, namespace, args).boxed_local()
}

async fn executed(client: &Client, namespace: &str, args: &RunArgs) -> ExitResult {
    if args.fold == Fold::Always && args.output == StreamFormat::Json {
        return Err(Failure::usage("--fold shows text; it cannot be used with --output json"));
    }
    let name = args.name.clone().unwrap_or_else(spec::random_name);
    let body = spec::task(client, namespace, &name, args).await?;
    // A slow writer may not have written to the pipe yet; then the warning follows at the end.
    let warned = input::warn_unread(args);
    if !args.detach {
        once::ask_first(client, namespace, &name).await?;
    }
    let task = client.create_task(&body).await.map_err(|error| {
        let failure = once::not_created(client, namespace, &name, error);
        if !failure.is_conflict() {
            return failure;
        }
        let flags = context_flags(client, namespace);
        failure.hint(format!(
            "Run the existing Task again with: sentinel rerun {name}{flags}\nOr delete it first with: sentinel delete {name}{flags}"
        ))
    })?;
    if args.detach {
        return detached(client, namespace, &name, &task, args.output);
    }
    if args.name.is_some() {
        note(Text::message().plain(format!("task {}", task.full_name())));
    }
    let display = Display {
        timestamps: args.timestamps,
        format: args.output,
        prefixed: args.no_prefix.then_some(false),
        fold: args.fold,
    };
    let result = watch(client, namespace, &name, RunSelector::Latest, display).await;
    let result =
        result.map_err(|failure| once::not_followed(client, namespace, &name, Started::Task, failure));
    if !warned {
        input::warn_unread(args);
    }
    result
}

/// Prints the name of the Task that `--detach` started.
fn detached(client: &Client, namespace: &str, name: &str, task: &Task, format: StreamFormat) -> ExitResult {
    note(&format!("Created. Follow it with: sentinel logs -f {name}{}", context_flags(client, namespace)));
    match format {
        StreamFormat::Text | StreamFormat::Raw => print(&format!("{name}\n"))?,
        StreamFormat::Json => print_json_line(&json!({
            "type": "created",
            "namespace": task.metadata.namespace,
            "task": name,
            "taskUid": task.metadata.uid,
        }))
        .map_err(|error| Failure::stdout(&error))?,
    }
    Ok(OK)
}

/// How the output of a Run is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Display {
    timestamps: bool,
    format: StreamFormat,
    /// Whether lines have a prefix; `None`: with more than one node.
    prefixed: Option<bool>,
    fold: Fold,
}

/// Follows a Run to its end, and returns its exit code. The first Ctrl-C detaches, the second cancels.
pub(super) async fn watch(
    client: &Client,
    namespace: &str,
    name: &str,
    run: RunSelector,
    display: Display,
) -> ExitResult {
    let mut interrupts = Interrupts::listen()?;
    let request = FollowRequest {
        client: client.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        run,
        nodes: BTreeSet::new(),
        options: LogOptions {
            follow: true,
            timestamps: display.timestamps,
            format: display.format,
            ..LogOptions::default()
        },
        prefixed: display.prefixed,
        show_task: false,
        output_only: false,
    };
    let followed = async {
        if display.fold == Fold::Always { follow_silently(request).await } else { follow(request).await }
    };
    match interrupts.until(followed).await {
        Interruptible::Done(followed) => {
            // The Run is over: Ctrl-C ends what is left to read, and nothing else.
            match interrupts.until(conclude(client, followed?, display)).await {
                Interruptible::Done(code) => code,
                Interruptible::Interrupted => Ok(INTERRUPTED),
            }
        }
        Interruptible::Interrupted => {
            let flags = context_flags(client, namespace);
            note(&format!(
                "\nDetached; the Run continues. Press Ctrl-C again within 2 s to cancel it.\n  follow it again:  sentinel logs -f {name}{flags}\n  cancel it:        sentinel cancel {name}{flags}"
            ));
            if interrupts.pressed_again().await {
                client.cancel_task(namespace, name, None).await?;
                note("Cancelled.");
            }
            Ok(INTERRUPTED)
        }
    }
}

/// Reports how a Run ended, and returns its exit code.
async fn conclude(client: &Client, followed: FollowedRun, display: Display) -> ExitResult {
    match print_folded(client, &followed, display).await {
        // Reported when the Run began.
        Err(failure) if failure.is_refusal() => {}
        printed => printed?,
    }
    summarize(&followed);
    if let Some(advice) = advice(client, &followed).await {
        note(Text::advice().plain(advice));
    }
    let code = exit_code(client, &followed).await?;
    if display.format == StreamFormat::Json {
        report(&followed, code)?;
    }
    Ok(code)
}

/// Shows what the nodes wrote with equal outputs as one, if that is wanted.
async fn print_folded(client: &Client, followed: &FollowedRun, display: Display) -> Result<(), Failure> {
    let Some(run) = &followed.run else { return Ok(()) };
    let options = LogOptions { timestamps: display.timestamps, ..LogOptions::default() };
    let uid = &followed.task.metadata.uid;
    let is_text = display.format == StreamFormat::Text;
    match display.fold {
        Fold::Always => fold::print(client, uid, run.number, options).await.map(|_| ()),
        Fold::Auto if is_text && run.target_count > 1 && is_terminal(StdStream::Out) => {
            let task = &followed.task.metadata;
            let flags = context_flags(client, &task.namespace);
            let whole = format!("sentinel logs {} --run {} --fold{flags}", task.name, run.number);
            fold::print_if_many(client, uid, run.number, options, &whole).await
        }
        Fold::Auto | Fold::Never => Ok(()),
    }
}
