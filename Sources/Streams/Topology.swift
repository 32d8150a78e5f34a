import Base
import Catalog

/// What a topology is made of.
package struct Topology {
    package let name: String
    /// In fold order: an event visits them first to last, and so do the events they emit.
    package let stages: [any Stage]
    /// Topics on which effectors answer; what they bring along in the same append is in `attachments`.
    package let answers: Set<String>
    package let attachments: Set<String>
    package let side: SideTopics
    /// Of what its state is the state. State that was stored under another one is dropped and folded again; nil takes
    /// whatever there is.
    package let identity: Digest?
    /// Inputs that other folds write.
    package let upstream: [String: Upstream]
    /// At which version it reads what has earlier ones, by topic.
    package let readings: [String: TopicReading]
    /// It ends at an event that it cannot fold, instead of recording it and going on.
    package let stopsAtFailure: Bool
    /// Whether other folds read what it writes, and want to know how far it is.
    package let saysProgress: Bool
    /// So many tasks each read every partition, and share the keys between them; nil where each has a partition of its own.
    package let keyTasks: Int?
    /// Inputs of which events may come out of the order of their times, as long as they are not late.
    package let sorted: Set<String>
    /// How many topologies of its name wrote its topics, with it.
    package let generation: Int
    /// Where its tasks take over from the one before; none where there was none.
    package let takeovers: [Takeover]

    package init(
        name: String, stages: [any Stage], answers: Set<String>, attachments: Set<String>,
        side: SideTopics = .platform, identity: Digest? = nil, upstream: [String: Upstream] = [:],
        saysProgress: Bool = false, stopsAtFailure: Bool = false, readings: [String: TopicReading] = [:],
        keyTasks: Int? = nil, generation: Int = 1, takeovers: [Takeover] = [],
        sorted: Set<String> = []
    ) {
        self.sorted = sorted
        self.generation = generation
        self.takeovers = takeovers
        self.keyTasks = keyTasks
        self.readings = readings
        self.stopsAtFailure = stopsAtFailure
        self.upstream = upstream
        self.saysProgress = saysProgress
        self.side = side
        self.identity = identity
        self.name = name
        self.stages = stages
        self.answers = answers
        self.attachments = attachments
    }

    /// Topics that come from outside the topology, each once, in stage order: their index is their rank.
    package func inputs(derived: Set<String>) -> [String] {
        var seen: Set<String> = []
        return stages.flatMap(\.inputs).filter { !derived.contains($0) && seen.insert($0).inserted }
    }

    /// Where a task begins to speak; nil where it does from the beginning.
    package func takeover(_ task: Int?) -> Takeover? {
        let number = task ?? 0
        return takeovers.indices.contains(number) ? takeovers[number] : nil
    }
}
