//! What events name is read again, and only that.
//!
//! In: events that have come. Out: services of the directories that they touch. Never: goes on after a loss.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        message::Change,
        session::Event,
        tree::{Kind, depth, split},
    },
    Follower, Stop,
};

/// What is to be done about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Todo {
    /// Read it.
    Read,
    /// List its children.
    List,
    /// It is gone.
    Forget,
}

impl Follower {
    /// Looks at the events that have come, and reads what they name.
    pub(super) async fn changes(&mut self) -> Result<(), Stop> {
        while let Ok(event) = self.events.try_recv() {
            self.state.queue.push_back(event);
        }
        let mut todo: BTreeMap<String, Todo> = BTreeMap::new();
        while let Some(event) = self.state.queue.pop_front() {
            match event {
                Event::Down(error) => {
                    self.out.status((&error).into());
                    return Err(Stop::Lost);
                }
                up @ Event::Up(_) => {
                    self.state.queue.push_front(up);
                    return Err(Stop::Lost);
                }
                Event::Overflow | Event::Credential => return Err(Stop::Again),
                Event::Changed(change, path) => {
                    if let Some(path) = self.relative(&path) {
                        self.state.watched.remove(&path);
                        let what = match change {
                            Change::Created | Change::Data => Todo::Read,
                            Change::Children => Todo::List,
                            Change::Deleted => Todo::Forget,
                        };
                        todo.insert(path, what);
                    }
                }
            }
        }
        self.settle(todo).await
    }

    async fn settle(&mut self, todo: BTreeMap<String, Todo>) -> Result<(), Stop> {
        let (mut touched, mut members) = (BTreeSet::new(), Vec::new());
        for (path, what) in todo {
            let Some((directory, name)) = split(&path) else {
                match what {
                    Todo::List => self.relist(path, &mut touched, &mut members).await?,
                    // The path itself came or went: everything is looked at.
                    Todo::Read | Todo::Forget => return Err(Stop::Again),
                }
                continue;
            };
            let kind = self.layout.kind(depth(directory), name);
            match (kind, what) {
                (Kind::Foreign, _) => {}
                (_, Todo::Forget) => touched.extend(self.gone(&path)),
                (Kind::Member, _) if self.wanted(directory).is_some() => {
                    members.push((directory.to_owned(), name.to_owned()));
                }
                (Kind::Member, _) => {}
                (Kind::Inner, Todo::Read) if !self.state.old => {
                    if self.wanted(&path).is_some() {
                        self.state.tree.found(&path);
                        touched.insert(path);
                    }
                }
                (Kind::Inner, _) => self.relist(path, &mut touched, &mut members).await?,
            }
        }
        touched.extend(members.iter().map(|(directory, _)| directory.clone()));
        self.read(members).await?;
        for directory in &touched {
            self.say(directory);
        }
        self.tell();
        Ok(())
    }

    /// A node is gone; the directories that it touches.
    fn gone(&mut self, path: &str) -> BTreeSet<String> {
        let inside = format!("{path}/");
        self.state
            .directories
            .retain(|directory| directory != path && !directory.starts_with(&inside));
        self.state.tree.gone(path)
    }

    /// Lists one directory again, and those that are new in it.
    async fn relist(
        &mut self,
        path: String,
        touched: &mut BTreeSet<String>,
        unread: &mut Vec<(String, String)>,
    ) -> Result<(), Stop> {
        let (directories, members) = self.walk(path.clone(), false).await?;
        if directories.is_empty() && !self.state.denied.contains(&path) {
            touched.extend(self.gone(&path));
        }
        self.state.directories.extend(directories);
        for (directory, names) in members {
            let news = self.state.tree.listed(&directory, &names);
            unread.extend(news.into_iter().map(|name| (directory.clone(), name)));
            touched.insert(directory);
        }
        Ok(())
    }
}
