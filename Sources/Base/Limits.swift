/// The platform's named limits. Bytes unless the name says otherwise.
package enum Limits {
    /// One event's data.
    package static let eventData = 16 << 20
    /// One HTTP body.
    package static let requestBody = 16 << 20
    /// Events in one HTTP batch.
    package static let batchEvents = 10_000
    /// One attribute of an event.
    package static let attributeLength = 4096
    /// What a dead letter keeps of the refused data; the rest is only digested into its id.
    package static let deadLetterBytes = 64 << 10
    /// Nesting of one JSON text.
    package static let jsonDepth = 128
    /// Characters of a topic, view, model or event id.
    package static let nameLength = 249
    /// Appends that wait for the log's writer, in bytes; beyond it producers wait (or are told to come back).
    package static let pendingAppends = 64 << 20
    /// Events of one append, which may go to as many partitions.
    package static let appendEvents = 50_000
    /// Records of one batch before compression.
    package static let batchBytes = 64 << 20
    /// One JSON text: the largest event's data, encoded, with all that an answer puts around it.
    package static let jsonText = 32 << 20
    /// Data of one page of an HTTP or CLI read, in bytes; a larger event is a page of its own.
    package static let pageBytes = 4 << 20
    /// What a follower over HTTP holds of a topic, as stored, while it waits for its reader.
    package static let followerBytes = 64 << 10
    /// What a repair takes from a backup; all of it is in memory until it is known to be better.
    package static let healingBytes = 512 << 20
    /// What a command takes as an answer of a node.
    package static let answerBytes = 256 << 20
    /// Events in one page of an HTTP or CLI read.
    package static let pageEvents = 10_000
    /// How long one SQL statement may run, in seconds.
    package static let sqlSeconds = 30.0
    /// Rows of one SQL answer.
    package static let sqlRows = 100_000
    /// How far ahead of the wall clock an event published by HTTP may lie, in milliseconds.
    package static let futureSkew: Int64 = 5 * 60 * 1000
    /// Online store: rows and features of one question.
    package static let onlineRows = 10_000
    package static let onlineFeatures = 1000
    /// Online store: values of one answer, rows times features.
    package static let onlineValues = 1_000_000
    /// Online store: kinds of keys that one question gives.
    package static let onlineEntities = 100
    /// Online store: lists of features that are kept resolved.
    package static let onlinePlans = 1000
    /// CEL: nested calls, operators and literals in one expression.
    package static let expressionDepth = 64
    /// CEL: operators that stand on one another without parentheses.
    package static let expressionHeight = 200
    /// CEL: what the automata of one regular expression may take.
    package static let patternBytes = 1 << 20
    /// CEL: bytes of a text, and elements of a list, that an expression puts together.
    package static let expressionBytes = 16 << 20
    /// CEL: elements that one evaluation goes over in all: of macros, comparisons, lists that are put together and what is read
    /// of an event; 64 bytes of a text are one.
    package static let expressionRounds = 1_000_000
    /// Named pins of one log.
    package static let pins = 10_000
    /// People whose keys one key store holds; about 100 bytes of memory each.
    package static let subjects = 10_000_000
    /// Followers of one node's event streams at a time.
    package static let followers = 10_000
}
