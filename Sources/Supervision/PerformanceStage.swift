import Base
import Foundation
import Learning
import Streams

/// What one UTC day's questions came to so far.
package struct DayScores: StateValue {
    package var questions: Int64 = 0
    package var revision: Int64 = 0
    package var ids: [String] = []
    package var scores: [Float] = []
    /// 0 or 1, or 2 while the truth is unknown.
    package var labels: [UInt8] = []
    /// Changed since it was last published.
    var changed = true
    /// Derived: where an id stands.
    private var places: [String: Int] = [:]

    init() {}

    mutating func predict(_ id: String, _ score: Float) {
        places[id] = ids.count
        ids.append(id)
        scores.append(score)
        labels.append(2)
        changed = true
    }

    mutating func learn(_ id: String, _ label: Bool) {
        guard let place = places[id] else { return }
        labels[place] = label ? 1 : 0
        changed = true
    }

    /// Scores and labels of what has its truth.
    var judged: (scores: [Float], labels: [Bool]) {
        var result: ([Float], [Bool]) = ([], [])
        for index in ids.indices where labels[index] < 2 {
            result.0.append(scores[index])
            result.1.append(labels[index] == 1)
        }
        return result
    }

    package func encode(into writer: inout ByteWriter) {
        writer.append(little: questions)
        writer.append(little: revision)
        writer.append(UInt8(changed ? 1 : 0))
        writer.append(little: UInt32(ids.count))
        for index in ids.indices {
            writer.append(sized: ids[index])
            writer.append(scores[index])
            writer.append(labels[index])
        }
    }

    package init(decoding reader: inout ByteReader) throws(BaseError) {
        questions = try reader.little()
        revision = try reader.little()
        changed = try reader.byte() == 1
        for index in 0..<Int(try reader.little(UInt32.self)) {
            let id = try reader.sizedText()
            places[id] = index
            ids.append(id)
            scores.append(try reader.float())
            labels.append(try reader.byte())
        }
    }
}

/// Performance by the day of the question, restated whenever late truth lands, published at each UTC midnight.
package final class PerformanceStage: Stage {
    package let name = "performance"
    private let monitors: [MonitorDefinition]
    private let questions: [String: String]
    private let days = StateStore<DayScores>(name: "performance.days")
    private let started = StateStore<StateBlob>(name: "performance.started")

    /// - Parameter questions: the question each model answers, by model name.
    package init(monitors: [MonitorDefinition], questions: [String: String]) {
        self.monitors = monitors
        self.questions = questions
    }

    package var inputs: [String] { ["questions.asked", "predictions.served", "outcomes.observed"] }
    package let outputs = [MonitorTopics.performance]
    package var stores: [any AnyStateStore] { [days, started] }

    package func process(_ event: StreamEvent, _ context: StageContext) throws {
        let document = event.document
        func text(_ key: JSONKey) -> String { document.member(0, key).flatMap { document.string($0) } ?? "" }
        switch event.topic {
        case "questions.asked":
            let question = text("question")
            for monitor in monitors where questions[monitor.model] == question {
                if started[monitor.name] == nil {
                    started.set(monitor.name, StateBlob([1]))
                    context.setTimer(at: Instant(day: event.time.day + 1), key: monitor.name)
                }
                days.modify("\(monitor.name)|\(event.time.date)", default: DayScores()) {
                    $0.questions += 1
                    $0.changed = true
                }
            }
        case "predictions.served":
            let model = text("model")
            let score = document.member(0, "score").flatMap { document.double($0) } ?? .nan
            let id = text("id")
            for monitor in monitors where monitor.model == model {
                days.modify("\(monitor.name)|\(event.time.date)", default: DayScores()) { $0.predict(id, Float(score)) }
            }
        default:
            let question = text("question")
            let asked = text("askedAt").prefix(10)
            guard let label = document.member(0, "label").flatMap({ document.bool($0) }) else { return }
            let id = text("id")
            for monitor in monitors where questions[monitor.model] == question {
                let key = "\(monitor.name)|\(asked)"
                guard days[key] != nil else { continue }
                days.modify(key, default: DayScores()) { $0.learn(id, label) }
            }
        }
    }

    package func fire(timer key: String, at time: Instant, _ context: StageContext) throws {
        guard let monitor = monitors.first(where: { $0.name == key }) else { return }
        // Armed while a question lies in the window; the next question arms it again. Years without events cost nothing.
        let watched = (0...monitor.performanceDays).contains {
            days["\(key)|\(Instant(day: time.day - $0).date)"] != nil
        }
        if watched {
            context.setTimer(at: Instant(day: time.day + 1), key: key)
        } else {
            _ = started.remove(key)
        }
        for dayKey in days.sortedKeys where dayKey.hasPrefix("\(key)|") && days[dayKey]?.changed == true {
            publish(monitor, dayKey, at: time, context)
        }
        if watched { summarise(monitor, at: time, context) }
    }

    private func publish(_ monitor: MonitorDefinition, _ key: String, at time: Instant, _ context: StageContext) {
        let day = String(key.suffix(10))
        let revision = days.modify(key, default: DayScores()) { state in
            state.revision += 1
            state.changed = false
            return state.revision
        }
        guard let state = days[key] else { return }
        let judged = state.judged
        context.emit(
            topic: MonitorTopics.performance, type: "performance.day",
            id: "performance:\(monitor.name):\(day):\(revision)",
            key: monitor.name,
            data: JSON.object([
                "asOf": context.asOf(inputs), "monitor": .string(monitor.name), "model": .string(monitor.model),
                "day": .string(day),
                "revision": .int(revision),
                "questions": .int(state.questions), "predictions": .int(Int64(state.ids.count)),
                "labels": .int(Int64(judged.labels.count)),
                "coverage": .double(state.questions > 0 ? Double(judged.labels.count) / Double(state.questions) : 0),
                "auc": Metrics.auc(judged.scores, judged.labels).map { .double($0) } ?? .null,
                "logLoss": Metrics.logLoss(judged.scores, judged.labels).map { .double($0) } ?? .null,
            ]).canonical, source: name)
    }

    private func summarise(_ monitor: MonitorDefinition, at time: Instant, _ context: StageContext) {
        var scores: [Float] = []
        var labels: [Bool] = []
        for back in 1...monitor.performanceDays {
            guard let state = days["\(monitor.name)|\(Instant(day: time.day - back).date)"] else { continue }
            let judged = state.judged
            scores += judged.scores
            labels += judged.labels
        }
        context.emit(
            topic: MonitorTopics.performance, type: "performance.window",
            id: "performance-window:\(monitor.name):\(time.date)", key: monitor.name,
            data: JSON.object([
                "asOf": context.asOf(inputs), "monitor": .string(monitor.name), "model": .string(monitor.model),
                "at": .string(time.description),
                "days": .int(Int64(monitor.performanceDays)), "labels": .int(Int64(labels.count)),
                "auc": Metrics.auc(scores, labels).map { .double($0) } ?? .null,
            ]).canonical, source: name)
    }
}
