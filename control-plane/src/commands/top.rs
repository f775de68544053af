//! `ioex top`: what a running node does, now.

use super::configuration;
use crate::cli::Top;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::engine_socket::EngineSocketError;
use crate::exit::{Exit, Failure};
use crate::top::{Look, Picture, draw, height, look};
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Columns of what is printed without a terminal.
const WIDTH: u16 = 100;

pub fn run(arguments: &Top) -> Result<ExitCode, Failure> {
    if !arguments.once && !arguments.json && !io::stdout().is_terminal() {
        let text = "standard output is no terminal to draw on; use --once, or --json for a line of JSON each interval";
        return Err(Failure::message(Exit::Usage, text));
    }
    let configuration = configuration(&arguments.place.sources())?.configuration;
    let directory = DataDirectory::existing(&configuration.node.data);
    let interval = Duration::from_secs_f64(arguments.interval);
    let before = look(&directory).map_err(failure)?;
    if arguments.once || arguments.json {
        return print(arguments, &directory, before, interval);
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(&mut terminal, &directory, before, interval);
    ratatui::restore();
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn print(
    arguments: &Top,
    directory: &DataDirectory,
    mut before: Look,
    interval: Duration,
) -> Result<ExitCode, Failure> {
    let console = Console { json: arguments.json };
    loop {
        std::thread::sleep(interval);
        let after = look(directory).map_err(failure)?;
        let picture = Picture::between(&before, &after);
        let text =
            if arguments.json { format!("{}\n", serde_json::to_string(&picture)?) } else { lines(&picture) };
        let is_read = console.stream(&text)?;
        if arguments.once || !is_read {
            return Ok(ExitCode::SUCCESS);
        }
        before = after;
    }
}

/// The screen as text.
fn lines(picture: &Picture) -> String {
    let mut buffer = Buffer::empty(Rect::new(0, 0, WIDTH, height(picture)));
    draw(picture, None, buffer.area, &mut buffer);
    let rows = buffer.content.chunks(usize::from(WIDTH));
    let line = |row: &[ratatui::buffer::Cell]| {
        let text: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", text.trim_end())
    };
    rows.map(line).collect()
}

/// Draws until a key ends it. An engine that goes away may come back: its last picture stays, with the reason.
fn watch(
    terminal: &mut DefaultTerminal,
    directory: &DataDirectory,
    mut before: Look,
    interval: Duration,
) -> io::Result<()> {
    let mut picture = Picture::between(&before, &before);
    let mut problem = None;
    loop {
        terminal.draw(|frame| draw(&picture, problem.as_deref(), frame.area(), frame.buffer_mut()))?;
        let next = Instant::now() + interval;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if !event::poll(left)? {
                continue;
            }
            match event::read()? {
                event if ends(&event) => return Ok(()),
                Event::Resize(..) => {
                    terminal
                        .draw(|frame| draw(&picture, problem.as_deref(), frame.area(), frame.buffer_mut()))?;
                }
                _ => {}
            }
        }
        match look(directory) {
            Ok(after) => {
                picture = Picture::between(&before, &after);
                problem = None;
                before = after;
            }
            Err(error) => problem = Some(error.to_string()),
        }
    }
}

fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (is_control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

fn failure(error: EngineSocketError) -> Failure {
    let exit = match &error {
        EngineSocketError::NotRunning { .. } => Exit::NotFound,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}
