import Base
import RecordFormat

/// One registration of a producer, as its event tells.
struct ProducerRegistration {
    let name: String?
    /// Offset of the first registration under that name.
    let id: Int64
    let epoch: Int16

    private static let idHeader = "ce_producerid"
    private static let epochHeader = "ce_producerepoch"

    func append(at end: Int64, time: Instant) -> LogAppend {
        let topic = EmbeddedLog.producersTopic.name
        let event = NewEvent(
            id: "registration-\(end)", source: "headrace", type: "producer.registered", time: time,
            key: name.map { [UInt8]($0.utf8) }, subject: name, contentType: nil, data: nil,
            extensions: [
                (ProducerRegistration.idHeader, String(id)), (ProducerRegistration.epochHeader, String(epoch)),
            ])
        return LogAppend(
            principal: name ?? "headrace", events: [(topic, 0, event)], expected: [TopicPartition(topic, 0): end])
    }

    /// All registrations in order; what is damaged is left out, so that a log opens all the same. A producer whose first
    /// registration is gone gets a new id, which no other ever had.
    static func all(_ log: EmbeddedLog) throws(EventLogError) -> [ProducerRegistration] {
        let partition = TopicPartition(EmbeddedLog.producersTopic.name, 0)
        var result: [ProducerRegistration] = []
        var offset = try log.offsets(partition).lowerBound
        let end = try log.offsets(partition).upperBound
        while offset < end {
            let batches: [RecordBatch]
            do {
                batches = try log.read(partition, from: offset, maxBytes: 1 << 20)
            } catch {
                guard error.code == "rot" else { throw error }
                offset += 1
                continue
            }
            guard let last = batches.last else { break }
            for batch in batches {
                for index in batch.records.indices where batch.records[index].offset >= offset {
                    let event = StoredEvent(batch: batch, index: index)
                    guard let id = event.header(idHeader).flatMap({ Int64($0) }),
                        let epoch = event.header(epochHeader).flatMap({ Int16($0) })
                    else { continue }
                    result.append(ProducerRegistration(name: event.header(EventHeader.subject), id: id, epoch: epoch))
                }
            }
            offset = last.header.lastOffset + 1
        }
        return result
    }
}
