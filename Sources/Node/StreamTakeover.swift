import Base
import EventLog
import Streams

/// How a changed stream took over from the one before it: a part of its definition, so that whoever folds it from the log
/// begins to speak where it began.
struct StreamTakeover {
    /// In a definition's body.
    static let member = "since"

    /// How many streams have had the name, with this one.
    let generation: Int
    /// By the number of the task.
    let tasks: [Takeover]

    init(generation: Int, tasks: [Takeover]) {
        self.generation = generation
        self.tasks = tasks
    }

    var json: JSON { .object(["generation": .int(Int64(generation)), "tasks": .array(tasks.map(\.json))]) }

    init?(_ json: JSON) {
        guard let generation = json["generation"]?.int, let list = json["tasks"]?.array else { return nil }
        tasks = list.compactMap { Takeover($0) }
        self.generation = Int(generation)
        guard tasks.count == list.count else { return nil }
    }
}
