import Base
import Features
import Streams

/// What views hold, now and as of moments of the past: the log tells.
extension Node {
    /// A time or a position; the end of the log where nothing is asked for.
    package static func limit(_ text: String?) throws -> FoldLimit {
        guard let limit = FoldLimit(text) else {
            throw NodeError(
                "bad-time", "'\(text ?? "")' is neither an RFC 3339 time nor a position such as orders/0@17")
        }
        return limit
    }

    package func pastFeatures(view name: String, key: String, asOf text: String?) throws -> JSON {
        let known = try compile().views.map(\.name)
        let (stage, moment) = try pastStage([name], asOf: text)
        var members: [String: JSON] = [:]
        for (name, value) in try stage.read(view: name, key: key, at: moment, known: known) {
            members[name] = value
        }
        return .object([
            "view": .string(name), "key": .string(key), "asOf": Node.moment(moment),
            "features": .object(members),
        ])
    }
}
