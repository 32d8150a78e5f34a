import Base
import EventLog
import RecordFormat

/// Which node folds which task, as the nodes themselves have said in the log: the newest word about a task counts. It may name
/// a node that is gone, until the next one has taken over.
struct TaskDirectory {
    static let topic = TopicPartition("headrace.tasks", 0)
    private static let type = "task.taken"
    private static let pageBytes = 1 << 20

    private(set) var addresses: [TopicPartition: String] = [:]
    private var next: Int64 = 0

    /// Reads what was said since.
    mutating func catchUp(_ log: any EventLog) throws {
        while true {
            let range = try log.offsets(Self.topic)
            guard next < range.upperBound else { return }
            let batches = try log.read(Self.topic, from: max(next, range.lowerBound), maxBytes: Self.pageBytes)
            guard let last = batches.last else { return }
            for batch in batches {
                for index in batch.records.indices where batch.records[index].offset >= next {
                    let event = StoredEvent(batch: batch, index: index)
                    guard let data = event.data, let json = try? JSON(parsing: data),
                        let stream = json["stream"]?.string,
                        let task = json["task"]?.int, let address = json["address"]?.string
                    else { continue }
                    addresses[TopicPartition(stream, Int(task))] = address
                }
            }
            next = last.header.lastOffset + 1
        }
    }

    /// What a node says when it has a task.
    /// - Parameter task: the stream's name and the task's number.
    static func taken(_ task: TopicPartition, by address: String, at time: Instant) -> NewEvent {
        NewEvent(
            id: "task:\(task):\(address):\(time.milliseconds)", source: "headrace:/node", type: type, time: time,
            key: [UInt8](task.description.utf8),
            data: JSON.object([
                "stream": .string(task.topic), "task": .int(Int64(task.partition)), "address": .string(address),
            ]).canonical)
    }
}
