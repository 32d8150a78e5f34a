import Base
import EventLog
import RecordFormat

/// Questions with their features exactly as they were asked and the truth known by a cut, in (asked, id) order.
package struct Dataset: Sendable {
    package let question: String
    package let features: Int
    package private(set) var ids: [String] = []
    package private(set) var askedAt: [Int64] = []
    /// Row-major, `features` a row; NaN is missing.
    package private(set) var values: [Float] = []
    package private(set) var labels: [Bool] = []

    package var count: Int { ids.count }

    package init(question: String, features: Int) {
        self.question = question
        self.features = features
    }

    mutating func append(id: String, askedAt time: Int64, row: ArraySlice<Float>, label: Bool) {
        ids.append(id)
        askedAt.append(time)
        values.append(contentsOf: row)
        labels.append(label)
    }

    package func row(_ index: Int) -> ArraySlice<Float> { values[index * features..<(index + 1) * features] }

    /// SHA-256 over question, width and every row: id, time, bits of the values, label. NaN has one bit pattern.
    package var digest: Digest {
        var stream = DigestStream()
        var writer = ByteWriter(capacity: 1 << 16)
        writer.append(sized: question)
        writer.append(little: UInt32(features))
        for index in 0..<count {
            writer.append(sized: ids[index])
            writer.append(little: askedAt[index])
            for value in row(index) { writer.append(value.isNaN ? Float.nan : value) }
            writer.append(UInt8(labels[index] ? 1 : 0))
            if writer.count > 1 << 16 {
                stream.update(writer.bytes)
                writer.bytes.removeAll(keepingCapacity: true)
            }
        }
        stream.update(writer.bytes)
        return stream.finish()
    }

    /// Rows asked before and from a moment on: what trains and what evaluates.
    package func split(at moment: Instant) -> (before: Range<Int>, from: Range<Int>) {
        let first = askedAt.firstIndex { $0 > moment.milliseconds } ?? count
        return (0..<first, first..<count)
    }
}

/// Which rows a dataset takes: asked in (from, cut], truth known at the cut.
package struct DatasetSpan: Sendable, Equatable {
    package let question: String
    package let from: Instant
    package let cut: Instant

    package init(question: String, from: Instant, cut: Instant) {
        self.question = question
        self.from = from
        self.cut = cut
    }
}

/// Collects questions and outcomes in any order and joins them.
package struct DatasetBuilder {
    package let span: DatasetSpan
    private var rows: [(askedAt: Int64, id: String, start: Int)] = []
    private var values: [Float] = []
    private var width = -1
    private var labels: [String: Bool] = [:]

    package init(span: DatasetSpan) { self.span = span }

    package mutating func addQuestion(_ document: JSONDocument, time: Instant) throws(DatasetsError) {
        guard time > span.from, time <= span.cut, text(document, "question") == span.question else { return }
        guard let id = text(document, "id"), let vector = document.member(0, "vector") else {
            throw DatasetsError("bad-question", "a question event at \(time) has no id or vector", fault: .headrace)
        }
        let count = Int(document.nodes[vector].count)
        guard width < 0 || count == width else {
            throw DatasetsError(
                "bad-question", "the question '\(id)' has \(count) features and not \(width)", fault: .headrace)
        }
        width = count
        rows.append((time.milliseconds, id, values.count))
        document.forEachElement(vector) { node in
            // The text is the shortest that names one float32, so reading it by way of a double gives that float again.
            values.append(document.double(node).map { Float($0) } ?? .nan)
        }
    }

    package mutating func addOutcome(_ document: JSONDocument, time: Instant) {
        guard time <= span.cut, text(document, "question") == span.question, let id = text(document, "id"),
            let node = document.member(0, "label"), let label = document.bool(node)
        else { return }
        labels[id] = label
    }

    private func text(_ document: JSONDocument, _ key: JSONKey) -> String? {
        document.member(0, key).flatMap { document.string($0) }
    }

    package func build() -> Dataset {
        var dataset = Dataset(question: span.question, features: max(width, 0))
        let order = rows.indices.sorted { left, right in
            if rows[left].askedAt != rows[right].askedAt { return rows[left].askedAt < rows[right].askedAt }
            return rows[left].id.utf8.lexicographicallyPrecedes(rows[right].id.utf8)
        }
        for index in order {
            guard let label = labels[rows[index].id] else { continue }
            let start = rows[index].start
            dataset.append(
                id: rows[index].id, askedAt: rows[index].askedAt, row: values[start..<start + width], label: label)
        }
        return dataset
    }

    /// Reads what the span needs from the log, and says which offsets that was.
    package static func read(
        _ span: DatasetSpan, from log: any EventLog
    ) throws -> (dataset: Dataset, positions: [(TopicPartition, Range<Int64>)]) {
        var builder = DatasetBuilder(span: span)
        let document = JSONDocument()
        var positions: [(TopicPartition, Range<Int64>)] = []
        for topic in [DatasetTopics.asked, DatasetTopics.outcomes] {
            let partition = TopicPartition(topic, 0)
            // Batches are cut by the clock, so the range begins at the first event it takes and not at a batch.
            let start = try log.offset(partition, atOrAfter: span.from)
            var from: Int64?
            var end = start
            try log.forEachEvent(partition, from: start) { event in
                // A derived topic is in time order, so the first later event ends it.
                guard event.time <= span.cut else { return false }
                end = event.offset + 1
                guard event.time > span.from else { return true }
                from = from ?? event.offset
                let parsed: Void? = try event.withData { raw in try document.parse(raw) }
                guard parsed != nil else { return true }
                if topic == DatasetTopics.asked {
                    try builder.addQuestion(document, time: event.time)
                } else {
                    builder.addOutcome(document, time: event.time)
                }
                return true
            }
            positions.append((partition, (from ?? end)..<end))
        }
        return (builder.build(), positions)
    }
}
