import Base
import Catalog
import Streams

package enum DatasetsModule {}
/// Errors of outcomes and datasets.
package typealias DatasetsError = Failure<DatasetsModule>

/// Topics that Datasets writes and reads.
package enum DatasetTopics {
    package static let asked = "questions.asked"
    package static let outcomes = "outcomes.observed"
}

/// Where the truth about a question comes from.
package final class Truth: Sendable {
    package let question: String
    package let topic: String
    let id: CELProgram
    let label: CELProgram
    let value: CELProgram?
    /// Everything it evaluates over its topic's data.
    package var expressions: [CELProgram] { [id, label, value].compactMap { $0 } }
    /// How long a question stays open, in milliseconds.
    let within: Int64

    /// - Parameter definition: a Question; nil when it declares no truth.
    package init?(_ definition: Definition) throws(CatalogError) {
        var outer = try DefinitionReader(definition)
        question = try outer.string("name")
        guard var reader = try outer.reader("truth") else { return nil }
        topic = try reader.string("topic")
        id = try reader.requiredExpression("id")
        label = try reader.requiredExpression("label")
        value = try reader.expression("value")
        within = try reader.optionalSpan("within") ?? 30 * 86_400_000
        try reader.finish()
    }
}

/// A question without its truth, or a truth that came before its question.
struct OpenQuestion: StateValue {
    var askedAt: Int64
    var reportAt: Int64
    var position: String

    init(askedAt: Int64, reportAt: Int64, position: String) {
        self.askedAt = askedAt
        self.reportAt = reportAt
        self.position = position
    }

    func encode(into writer: inout ByteWriter) {
        writer.append(little: askedAt)
        writer.append(little: reportAt)
        writer.append(sized: position)
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        askedAt = try reader.little()
        reportAt = try reader.little()
        position = try reader.sizedText()
    }
}

struct EarlyTruth: StateValue {
    var label: Bool
    var value: Double
    var position: String

    init(label: Bool, value: Double, position: String) {
        self.label = label
        self.value = value
        self.position = position
    }

    func encode(into writer: inout ByteWriter) {
        writer.append(UInt8(label ? 1 : 0))
        writer.append(value)
        writer.append(sized: position)
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        label = try reader.byte() == 1
        value = try reader.double()
        position = try reader.sizedText()
    }
}

/// Joins each question with its truth, whichever comes first and however late the other is.
package final class OutcomeStage: Stage {
    package let name = "outcomes"
    private let truths: [Truth]
    private let open = StateStore<OpenQuestion>(name: "outcomes.open")
    private let early = StateStore<EarlyTruth>(name: "outcomes.early")
    private var writer = JSONWriter()
    private var within: [String: Int64] = [:]

    package init(truths: [Truth]) {
        self.truths = truths
        for truth in truths { within[truth.question] = truth.within }
    }

    package var inputs: [String] {
        var seen: Set<String> = []
        return ([DatasetTopics.asked] + truths.map(\.topic)).filter { seen.insert($0).inserted }
    }

    package let outputs = [DatasetTopics.outcomes]
    package var stores: [any AnyStateStore] { [open, early] }

    package func process(_ event: StreamEvent, _ context: StageContext) throws {
        if event.topic == DatasetTopics.asked {
            asked(event, context)
            return
        }
        var scope = CELContext(document: event.document)
        for truth in truths where truth.topic == event.topic {
            guard let id = try truth.id.label(&scope) else {
                throw DatasetsError("no-truth-id", "the event names no question of '\(truth.question)'")
            }
            let key = "\(truth.question)|\(id)"
            let label = try truth.label.bool(&scope)
            let found = EarlyTruth(
                label: label, value: try truth.value?.number(&scope) ?? .nan, position: event.position.description)
            if let question = open.remove(key) {
                context.cancelTimer(at: Instant(milliseconds: question.askedAt) + truth.within, key: key)
                emit(key, question, found, context)
            } else if early[key] == nil {
                early.set(key, found)
                context.setTimer(at: event.time + truth.within, key: key)
            }
        }
    }

    private func asked(_ event: StreamEvent, _ context: StageContext) {
        let document = event.document
        func text(_ key: JSONKey) -> String { document.member(0, key).flatMap { document.string($0) } ?? "" }
        let name = text("question")
        guard let span = within[name] else { return }
        let key = "\(name)|\(text("id"))"
        let question = OpenQuestion(
            askedAt: event.time.milliseconds, reportAt: (Instant(text("reportAt")) ?? event.time).milliseconds,
            position: event.position.description)
        if let truth = early.remove(key) {
            emit(key, question, truth, context)
        } else {
            open.set(key, question)
            context.setTimer(at: event.time + span, key: key)
        }
    }

    /// A question nobody answers in time is closed; it stays without truth.
    package func fire(timer key: String, at time: Instant, _ context: StageContext) throws {
        _ = open.remove(key)
        _ = early.remove(key)
    }

    private func emit(_ key: String, _ question: OpenQuestion, _ truth: EarlyTruth, _ context: StageContext) {
        let bar = key.firstIndex(of: "|") ?? key.endIndex
        let id = String(key[key.index(after: bar)...])
        writer.reset()
        writer.beginObject()
        writer.key("question")
        writer.value(String(key[..<bar]))
        writer.key("id")
        writer.value(id)
        writer.key("label")
        writer.value(truth.label)
        writer.key("value")
        writer.value(truth.value)
        writer.key("askedAt")
        writer.value(Instant(milliseconds: question.askedAt))
        writer.key("reportAt")
        writer.value(Instant(milliseconds: question.reportAt))
        writer.key("asked")
        writer.value(question.position)
        writer.key("truth")
        writer.value(truth.position)
        writer.endObject()
        context.emit(
            topic: DatasetTopics.outcomes, type: "outcome.observed", id: "outcome:\(key):\(question.position)", key: id,
            data: writer.bytes,
            causation: truth.position, source: name)
    }
}
