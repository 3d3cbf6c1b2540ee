//! Guardrails: checks of what a run is asked, of what it answers, and of its tool calls.
//!
//! A guardrail allows, or it trips, and the run ends; about a tool call it may also reject, and the model goes on
//! without the call or its output. Which guardrails an agent has is recorded with its run, so that the machine knows
//! which checks are due: nothing goes on before they are recorded. What fails, is late or cannot be found trips.
//!
//! A pattern is a guard against accidents, like the rules of a policy. The wall is the sandbox.

use std::error::Error;
use std::sync::Arc;

use mooring_capability::BoxFuture;
use mooring_model::{FunctionOutput, Item, OutputSchema};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::TypedOutput;

/// What a guardrail looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// What the run is asked, of the agent that it begins with. The model is asked meanwhile, unless the guardrail is
    /// blocking; no tool is called and no answer is taken before.
    Input,
    /// The last answer, of the agent that gives it.
    Output,
    /// A tool call, before the policy and before people are asked.
    ToolInput,
    /// What a tool call gave, before the model reads it.
    ToolOutput,
}

impl Stage {
    /// The word in agent files and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::ToolInput => "tool_input",
            Self::ToolOutput => "tool_output",
        }
    }

    /// Whether it is about tool calls.
    pub fn of_tools(self) -> bool {
        matches!(self, Self::ToolInput | Self::ToolOutput)
    }
}

/// What to do where a guardrail of an agent file finds something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardrailAction {
    /// End the run.
    #[default]
    Trip,
    /// Do without the tool call or its output, and tell the model so.
    Reject,
}

/// A guardrail, as agent files and journals have it. It looks with a pattern, or asks an agent; with neither it is
/// code, which whoever drives the run brings along in [`crate::AgentHost`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardrailSpec {
    /// Its name, one of its own for each guardrail of an agent.
    pub name: String,
    /// What it looks at.
    pub on: Stage,
    /// The tools whose calls it looks at: a name with `*` and `?`. All of them where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// A regular expression; what it is found in is not allowed. For a tool call it is looked for in the arguments as
    /// they were written and in each string in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The agent that judges, by name. It answers `{"trip": …, "reason": …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What to do where it finds something.
    #[serde(default)]
    pub action: GuardrailAction,
    /// Of one that looks at the input: whether the sandbox and the model wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blocking: bool,
}

/// What a guardrail gets to see.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// What the run is asked now: the conversation before it is left out.
    Input(Vec<Item>),
    /// The answer.
    Output(String),
    /// A tool call.
    ToolInput {
        /// The tool.
        tool: String,
        /// What the model wrote: JSON arguments, or free text.
        input: String,
    },
    /// What a tool call gave.
    ToolOutput {
        /// The tool.
        tool: String,
        /// What the model wrote.
        input: String,
        /// The output.
        output: FunctionOutput,
    },
}

/// What a guardrail thinks of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Only of tool calls: the call is not made, or its output is withheld. The model reads this instead.
    Reject(String),
    /// Only of a tool's output: the model gets this instead.
    Replace(FunctionOutput),
    /// The run ends as failed. This is recorded and told.
    Trip(Value),
}

/// A guardrail in code.
///
/// The harness calls [`check`](Self::check) once for what there is to see, and again after a crash as long as its
/// verdict is not recorded. It has two minutes; an error or a late verdict trips, and so does one that does not fit
/// the stage.
pub trait Guardrail: std::fmt::Debug + Send + Sync {
    /// Its name. A run that is resumed finds it again by this name.
    fn name(&self) -> &str;

    /// What it looks at.
    fn stage(&self) -> Stage;

    /// The tools whose calls it looks at, with `*` and `?`; all of them where it names none.
    fn tool(&self) -> Option<&str> {
        None
    }

    /// Of one that looks at the input: whether the sandbox and the model wait for it.
    fn blocking(&self) -> bool {
        false
    }

    /// Looks.
    fn check<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, Box<dyn Error + Send + Sync>>>;
}

impl GuardrailSpec {
    /// The record of a guardrail in code.
    pub(crate) fn of_code(code: &dyn Guardrail) -> Self {
        Self {
            name: code.name().into(),
            on: code.stage(),
            tool: code.tool().map(Into::into),
            pattern: None,
            agent: None,
            action: GuardrailAction::Trip,
            blocking: code.blocking(),
        }
    }

    /// Why it cannot be used, if so: what and why, for whoever wrote it.
    pub fn problem(&self) -> Option<String> {
        let problem = if self.name.trim().is_empty() {
            "a guardrail needs a name".into()
        } else if self.pattern.is_some() && self.agent.is_some() {
            format!("guardrail '{}' has a pattern and an agent. Make two of it", self.name)
        } else if self.tool.is_some() && !self.on.of_tools() {
            format!("guardrail '{}' names a tool, and looks at no tool call. Leave `tool` out", self.name)
        } else if self.action == GuardrailAction::Reject && !self.on.of_tools() {
            format!("guardrail '{}' can only trip: `reject` is for tool calls and their outputs", self.name)
        } else if self.blocking && self.on != Stage::Input {
            format!("guardrail '{}' is blocking as it is: `blocking` is for the input alone", self.name)
        } else {
            let pattern = self.pattern.as_deref().map(Regex::new)?.err()?;
            format!("guardrail '{}' has a pattern that is none: {pattern}", self.name)
        };
        Some(problem)
    }
}

/// A pattern as a guardrail.
#[derive(Debug)]
struct Pattern {
    spec: GuardrailSpec,
    regex: Regex,
}

impl Guardrail for Pattern {
    fn name(&self) -> &str {
        &self.spec.name
    }

    fn stage(&self) -> Stage {
        self.spec.on
    }

    fn check<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            let found = subject.texts().iter().any(|text| self.regex.is_match(text));
            Ok(if found { self.spec.found("its pattern was found") } else { Verdict::Allow })
        })
    }
}

impl GuardrailSpec {
    /// What it makes of something that is not allowed.
    fn found(&self, why: &str) -> Verdict {
        match self.action {
            GuardrailAction::Trip => Verdict::Trip(why.into()),
            GuardrailAction::Reject => Verdict::Reject(why.into()),
        }
    }

    /// What checks it in this process; a reason where nothing can. Not for agents.
    pub(crate) fn bind(&self, code: &[Arc<dyn Guardrail>]) -> Result<Arc<dyn Guardrail>, String> {
        match &self.pattern {
            Some(pattern) => match Regex::new(pattern) {
                Ok(regex) => Ok(Arc::new(Pattern { spec: self.clone(), regex })),
                Err(error) => Err(format!("its pattern is none: {error}")),
            },
            None => code
                .iter()
                .find(|code| code.name() == self.name && code.stage() == self.on)
                .cloned()
                .ok_or_else(|| "it is code that was not given to this driver".into()),
        }
    }

    /// What an agent's answer means.
    pub(crate) fn judged(&self, answer: &str) -> Result<Verdict, String> {
        #[derive(Deserialize)]
        struct Judgement {
            trip: bool,
            #[serde(default)]
            reason: String,
        }
        let judgement: Judgement = serde_json::from_str(answer)
            .map_err(|error| format!("its agent did not answer {{\"trip\": …, \"reason\": …}}: {error}"))?;
        Ok(if judgement.trip { self.found(&judgement.reason) } else { Verdict::Allow })
    }
}

/// What an agent that judges must answer.
pub(crate) fn judgement() -> TypedOutput {
    TypedOutput::new(OutputSchema {
        schema: json!({
            "type": "object",
            "properties": {"trip": {"type": "boolean"}, "reason": {"type": "string"}},
            "required": ["trip", "reason"],
            "additionalProperties": false,
        }),
        strict: true,
    })
}

impl Subject {
    /// All that a pattern is looked for in.
    fn texts(&self) -> Vec<String> {
        match self {
            Self::Input(items) => items.iter().map(Item::text).collect(),
            Self::Output(text) => vec![text.clone()],
            Self::ToolOutput { output, .. } => vec![output.text()],
            Self::ToolInput { input, .. } => {
                let mut texts = vec![input.clone()];
                if let Ok(arguments) = serde_json::from_str(input) {
                    strings(arguments, &mut texts);
                }
                texts
            }
        }
    }

    /// What an agent that judges is asked: JSON, so that nothing in it can pass for the question.
    pub(crate) fn question(&self) -> String {
        match self {
            Self::Input(_) => json!({"stage": "input", "text": self.texts().join("\n\n")}),
            Self::Output(text) => json!({"stage": "output", "text": text}),
            Self::ToolInput { tool, input } => json!({"stage": "tool_input", "tool": tool, "input": input}),
            Self::ToolOutput { tool, input, output } => {
                json!({"stage": "tool_output", "tool": tool, "input": input, "output": output.text()})
            }
        }
        .to_string()
    }
}

/// Every string in a value, names of fields too.
fn strings(value: Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.into_iter().for_each(|value| strings(value, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                found.push(name);
                strings(value, found);
            }
        }
        _ => {}
    }
}
