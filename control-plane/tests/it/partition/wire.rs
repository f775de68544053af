//! Machines with addresses of their own at two switches: a network that can be cut in two.
//!
//! ```text
//! 198.18.1.1   198.18.2.1   198.18.3.1   198.18.4.1   ...        each a /24 of its own, and its own network namespace
//!      |            |            |            |
//!  [ switch west ......... ]  [ switch east ......... ]          which machine is at which is decided again and again
//! ```

use super::namespace::Namespace;
use std::process::Command;

/// The switches.
pub struct Wire {
    hub: Namespace,
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    West,
    East,
}

impl Switch {
    fn name(self) -> &'static str {
        match self {
            Switch::West => "west",
            Switch::East => "east",
        }
    }
}

impl Wire {
    /// Two switches without a cable between them; or why there are none: it takes root.
    pub fn new() -> Result<Wire, String> {
        let hub = Namespace::new()?;
        for switch in [Switch::West, Switch::East] {
            hub.try_run("ip", &["link", "add", switch.name(), "type", "bridge"], "")?;
            hub.run("ip", &["link", "set", switch.name(), "up"]);
        }
        Ok(Wire { hub })
    }

    /// A machine at a switch.
    pub fn machine(&self, number: u8, switch: Switch) -> Machine {
        let namespace = Namespace::new().expect("there was one before");
        let (port, path) = (format!("port{number}"), namespace.path());
        self.hub.run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &path]);
        let machine = Machine { number, namespace };
        self.plug(&machine, switch);
        self.hub.run("ip", &["link", "set", &port, "up"]);
        let address = format!("{}/15", machine.ip());
        for arguments in [
            &["address", "add", &address, "dev", "eth0"][..],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "dev", "eth0"],
        ] {
            machine.namespace.run("ip", arguments);
        }
        machine
    }

    /// Moves a machine to a switch.
    pub fn plug(&self, machine: &Machine, switch: Switch) {
        let port = format!("port{}", machine.number);
        self.hub.run("ip", &["link", "set", &port, "master", switch.name()]);
    }
}

/// A machine.
pub struct Machine {
    number: u8,
    namespace: Namespace,
}

impl Machine {
    pub fn ip(&self) -> String {
        format!("198.18.{}.1", self.number)
    }

    /// The same program with the same arguments and variables, on this machine.
    pub fn on(&self, program: &Command) -> Command {
        let wrapper = self.namespace.wrapper();
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}
