import Base
import Catalog
import Streams

/// Topics that Features writes.
package enum FeatureTopics {
    package static let asked = "questions.asked"
}

/// A question that waits for its moment: the keys it will read and the values it brought along.
struct PendingQuestion: StateValue {
    var askAt: Int64
    var reportAt: Int64
    var position: String
    var keys: [String?]
    /// By column; NaN where the column reads a view.
    var statics: [Double]

    init(askAt: Int64, reportAt: Int64, position: String, keys: [String?], statics: [Double]) {
        self.askAt = askAt
        self.reportAt = reportAt
        self.position = position
        self.keys = keys
        self.statics = statics
    }

    func encode(into writer: inout ByteWriter) {
        writer.append(little: askAt)
        writer.append(little: reportAt)
        writer.append(sized: position)
        writer.append(little: UInt32(keys.count))
        for key in keys {
            writer.append(UInt8(key == nil ? 0 : 1))
            if let key { writer.append(sized: key) }
        }
        writer.append(little: UInt32(statics.count))
        for value in statics { writer.append(value) }
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        askAt = try reader.little()
        reportAt = try reader.little()
        position = try reader.sizedText()
        keys = []
        for _ in 0..<(try reader.little(UInt32.self)) {
            keys.append(try reader.byte() == 1 ? try reader.sizedText() : nil)
        }
        statics = []
        for _ in 0..<(try reader.little(UInt32.self)) { statics.append(try reader.double()) }
    }
}

/// The number of a category value.
struct CategoryCode: StateValue {
    let code: Int64
    init(code: Int64) { self.code = code }
    func encode(into writer: inout ByteWriter) { writer.append(little: code) }
    init(decoding reader: inout ByteReader) throws(BaseError) { code = try reader.little() }
}

/// Keeps the feature views and asks the questions.
package final class FeatureStage: Stage {
    package let name = "features"
    package let views: [FeatureView]
    package let questions: [Question]
    private let viewStores: [StateStore<WindowState>]
    private let viewIndex: [String: Int]
    private let pending = StateStore<PendingQuestion>(name: "questions.pending")
    private let codes = StateStore<CategoryCode>(name: "questions.categories")
    private var sizes: [String: Int64] = [:]
    private var viewsByTopic: [String: [Int]] = [:]
    private var questionsByTopic: [String: [Int]] = [:]
    /// For each question: its reads as view numbers, and input positions to name.
    private var readViews: [[Int]] = []
    private var row: [Double] = []
    private var texts: [String?] = []
    private var writer = JSONWriter(capacity: 1024)

    package init(views: [FeatureView], questions: [Question]) {
        self.views = views
        self.questions = questions
        viewStores = views.map { StateStore<WindowState>(name: "features.\($0.name)") }
        viewIndex = Dictionary(uniqueKeysWithValues: views.enumerated().map { ($1.name, $0) })
        for (index, view) in views.enumerated() { viewsByTopic[view.topic, default: []].append(index) }
        for (index, question) in questions.enumerated() { questionsByTopic[question.topic, default: []].append(index) }
        readViews = questions.map { question in question.reads.map { viewIndex[$0.view] ?? 0 } }
    }

    func store(of view: String) -> StateStore<WindowState>? { viewIndex[view].map { viewStores[$0] } }

    package var inputs: [String] {
        var seen: Set<String> = []
        return (views.map(\.topic) + questions.map(\.topic)).filter { seen.insert($0).inserted }
    }

    package let outputs = [FeatureTopics.asked]
    package var stores: [any AnyStateStore] { viewStores + [pending, codes] }

    package func restored() {
        for key in codes.sortedKeys {
            let prefix = String(key.prefix { $0 != "=" })
            sizes[prefix, default: 0] += 1
        }
    }

    package func lateness(of topic: String) -> Int64? {
        (viewsByTopic[topic] ?? []).map { views[$0].lateness }.filter { $0 > 0 }.max()
    }

    package func process(_ event: StreamEvent, _ context: StageContext) throws {
        var scope = CELContext(document: event.document)
        // What one view or question cannot read must not keep the event from the others.
        var failure: (any Error)?
        for index in viewsByTopic[event.topic] ?? [] where views[index].takes(lag: event.lag) {
            do { try update(index, event, &scope) } catch {
                failure = failure ?? FeatureStage.named("the view '\(views[index].name)'", error)
            }
        }
        // What comes late asks nothing: its moment is over.
        for index in questionsByTopic[event.topic] ?? [] where event.lag == nil {
            do { try prepare(index, event, &scope, context) } catch {
                failure = failure ?? FeatureStage.named("the question '\(questions[index].name)'", error)
            }
        }
        if let failure { throw failure }
    }

    /// An expression's own error does not say whose it is.
    private static func named(_ who: String, _ error: any Error) -> any Error {
        guard let known = error as? BaseError else { return error }
        return FeaturesError(known.code, "\(who): \(known.message)", cause: known.cause)
    }

    private func update(_ index: Int, _ event: StreamEvent, _ scope: inout CELContext) throws {
        let view = views[index]
        guard let key = try view.read(&scope, row: &row, texts: &texts) else { return }
        viewStores[index].modify(key, default: WindowState(columnCount: view.columns.count)) {
            $0.add(time: event.time.milliseconds, row: row, texts: texts, plan: view.plan)
        }
    }

    private func prepare(
        _ index: Int, _ event: StreamEvent, _ scope: inout CELContext, _ context: StageContext
    ) throws {
        let question = questions[index]
        if let filter = question.filter, !(try filter.bool(&scope)) { return }
        guard let id = try question.id.label(&scope), !id.isEmpty else {
            throw FeaturesError("no-question-id", "the event gives no id for the question '\(question.name)'")
        }
        let askAt = try question.askAt.instant(&scope)
        let reportAt = try question.reportAt?.instant(&scope) ?? askAt
        let key = "\(question.name)|\(id)"
        guard pending[key] == nil else {
            throw FeaturesError("repeated-question", "the question '\(question.name)' about '\(id)' is already waiting")
        }
        guard askAt >= event.time else {
            throw FeaturesError(
                "question-in-the-past", "the question about '\(id)' would have been asked at \(askAt), before its event"
            )
        }
        var statics: [Double] = []
        statics.reserveCapacity(question.columns.count)
        for (place, column) in question.columns.enumerated() {
            switch column {
            case .view: statics.append(.nan)
            case .number(let program):
                statics.append(try ValueColumn(program: program, kind: .number).value(&scope))
            case .category(let program):
                guard let label = try program.label(&scope) else {
                    statics.append(.nan)
                    continue
                }
                statics.append(Double(code("\(question.name).\(question.featureNames[place])", label)))
            }
        }
        let keys = try question.reads.map { try $0.key.label(&scope) }
        pending.set(
            key,
            PendingQuestion(
                askAt: askAt.milliseconds, reportAt: reportAt.milliseconds, position: event.position.description,
                keys: keys, statics: statics))
        context.setTimer(at: askAt, key: key)
    }

    private func code(_ feature: String, _ label: String) -> Int64 {
        let key = "\(feature)=\(label)"
        if let known = codes[key] { return known.code }
        let code = sizes[feature, default: 0]
        sizes[feature] = code + 1
        codes.set(key, CategoryCode(code: code))
        return code
    }

    package func fire(timer key: String, at time: Instant, _ context: StageContext) throws {
        guard let waiting = pending.remove(key), let bar = key.firstIndex(of: "|"),
            let index = questions.firstIndex(where: { $0.name == key[..<bar] })
        else { return }
        let question = questions[index]
        let id = String(key[key.index(after: bar)...])
        let vector = try vector(question, index, waiting, at: time)
        writer.reset()
        writer.beginObject()
        writer.key("question")
        writer.value(question.name)
        writer.key("id")
        writer.value(id)
        writer.key("askedAt")
        writer.value(time)
        writer.key("reportAt")
        writer.value(Instant(milliseconds: waiting.reportAt))
        writer.key("vector")
        writer.beginArray()
        for value in vector { writer.value(value) }
        writer.endArray()
        provenance(question, index, waiting, context)
        writer.endObject()
        context.emit(
            topic: FeatureTopics.asked, type: "question.asked", id: "\(question.name):\(id):\(waiting.position)",
            key: id,
            data: writer.bytes,
            causation: waiting.position, source: name)
    }

    private func vector(
        _ question: Question, _ index: Int, _ waiting: PendingQuestion, at time: Instant
    ) throws -> [Float] {
        let read = waiting.keys.enumerated().map { place, key in values(readViews[index][place], key, at: time) }
        var vector: [Float] = []
        vector.reserveCapacity(question.columns.count)
        for (place, column) in question.columns.enumerated() {
            guard case .view(let number, let feature, let isCategory) = column else {
                vector.append(Float(waiting.statics[place]))
                continue
            }
            let value = read[number][feature]
            // A text stands where the number is missing; few values are, so few are looked up again.
            let text =
                value.isNaN
                ? text(feature, of: waiting.keys[number], in: readViews[index][number], at: time.milliseconds) : nil
            guard isCategory || text != nil else {
                vector.append(Float(value))
                continue
            }
            let name = "\(question.name).\(question.featureNames[place])"
            guard isCategory else {
                throw FeaturesError(
                    "not-a-number", "'\(name)' is a text here; number its values by 'encode: category'")
            }
            let label = text ?? CELValue.double(value).label
            vector.append(label.map { Float(code(name, $0)) } ?? .nan)
        }
        return vector
    }

    private func text(_ feature: Int, of key: String?, in view: Int, at now: Int64) -> String? {
        guard let key else { return nil }
        return viewStores[view].inspect(key) { state in
            views[view].isFresh(state.lastTime, at: now) ? views[view].text(feature, &state, at: now) : nil
        } ?? nil
    }

    /// Names the inputs of a vector: windows by view, key and longest span, as of how far each input was folded.
    private func provenance(_ question: Question, _ index: Int, _ waiting: PendingQuestion, _ context: StageContext) {
        writer.key("windows")
        writer.beginArray()
        for (place, key) in waiting.keys.enumerated() {
            guard let key else { continue }
            let view = views[readViews[index][place]]
            writer.beginArray()
            writer.value(view.name)
            writer.value(key)
            writer.value(view.longestSpan / 1000)
            writer.endArray()
        }
        writer.endArray()
        writer.key("asOf")
        writer.beginObject()
        for (partition, next) in context.positions where viewsByTopic[partition.topic] != nil && next > 0 {
            writer.key(partition.description)
            writer.value(next)
        }
        writer.endObject()
    }

    private func values(_ view: Int, _ key: String?, at time: Instant) -> [Double] {
        let now = time.milliseconds
        let found = key.flatMap { key in
            viewStores[view].inspect(key) { state in
                guard views[view].isFresh(state.lastTime, at: now) else {
                    return [Double](repeating: .nan, count: views[view].aggregates.count)
                }
                return state.read(views[view].plan, at: now)
            }
        }
        if let found { return found }
        // Nothing was ever seen: all of it is missing, counts too, as in datasets and answers (`NOT_FOUND`).
        return [Double](repeating: .nan, count: views[view].aggregates.count)
    }

    /// The features of one key as of a moment, for readers outside the fold; changes nothing.
    /// - Parameter known: the views there are, for a message; this stage's when absent.
    package func read(
        view name: String, key: String, at time: Instant, known: [String]? = nil
    ) throws(FeaturesError) -> [(name: String, value: JSON)] {
        guard let index = viewIndex[name] else {
            throw FeaturesError(
                "unknown-view",
                "there is no feature view '\(name)'; there are \((known ?? views.map(\.name)).joined(separator: ", "))")
        }
        guard var state = viewStores[index][key] else {
            throw FeaturesError("unknown-entity", "the feature view '\(name)' has seen no event of '\(key)'")
        }
        guard views[index].isFresh(state.lastTime, at: time.milliseconds) else {
            return views[index].aggregates.map { ($0.name, .null) }
        }
        let values = state.read(views[index].plan, at: time.milliseconds)
        return values.enumerated().map { place, value in
            let name = views[index].aggregates[place].name
            if value.isNaN, let text = views[index].text(place, &state, at: time.milliseconds) {
                return (name, .string(text))
            }
            return (name, value.isNaN ? .null : .double(value))
        }
    }
}
