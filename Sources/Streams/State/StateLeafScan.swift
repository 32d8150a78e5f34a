import Base
import GRDB

/// Reads what a store has on the disk for its digest, on a thread of its own, as it is when this begins.
final class StateLeafScan: Sendable {
    private let outcome = Monitor<Result<StateLeaves, any Error>?>(nil)
    private let isOpen = Monitor(false)

    /// Returns once the state of the disk that it reads is held.
    init(_ disk: StateDisk) {
        let (runs, path) = (disk.runs, disk.reader.path)
        _ = BlockingThread(name: "state-digest") { [outcome, isOpen] in
            let result = Result {
                let reader = try StateReader(path: path)
                return try reader.all { database in
                    // A transaction begins with its first question.
                    _ = try Int64.fetchOne(database, sql: "SELECT max(id) FROM runs")
                    isOpen.update { $0 = true }
                    var leaves = StateLeaves()
                    try StateMerge(runs, database).forEach { entry in
                        guard entry.value != nil else { return }
                        leaves.replace(.zero, with: entry.leaf, in: StateLeaves.bucket(of: entry.hash))
                    }
                    return leaves
                }
            }
            isOpen.update { $0 = true }
            outcome.update { $0 = result }
        }
        _ = isOpen.wait { $0 ? true : nil }
    }

    func join() -> Result<StateLeaves, any Error> {
        outcome.wait { $0 } ?? .failure(StreamsError("state-load", "the state's digest was not read", fault: .headrace))
    }
}
