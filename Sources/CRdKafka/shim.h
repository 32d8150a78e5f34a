#ifndef HEADRACE_CRDKAFKA_H
#define HEADRACE_CRDKAFKA_H
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

/* rd_kafka_producev is variadic, which Swift does not import. Headers belong to librdkafka only if this succeeds. */
static inline rd_kafka_resp_err_t headrace_rd_produce(
    rd_kafka_t *client, rd_kafka_topic_t *topic, int32_t partition, int64_t timestamp, const void *key,
    size_t key_size, const void *value, size_t value_size, rd_kafka_headers_t *headers, void *opaque) {
    if (headers) {
        return rd_kafka_producev(
            client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_VALUE((void *)value, value_size),
            RD_KAFKA_V_TIMESTAMP(timestamp), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
    }
    return rd_kafka_producev(
        client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_VALUE((void *)value, value_size), RD_KAFKA_V_TIMESTAMP(timestamp),
        RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
}

/* Delivered records that share an opaque follow each other: one call for each run of them, with the lowest offset the
   brokers told, instead of one for each record. A record that failed is a run of its own. */
typedef void (*headrace_rd_run)(
    void *opaque, int64_t records, int64_t lowest, rd_kafka_resp_err_t code, const rd_kafka_message_t *failed);
static inline void headrace_rd_reports(rd_kafka_event_t *event, headrace_rd_run run) {
    const rd_kafka_message_t *message;
    void *opaque = NULL;
    int64_t records = 0, lowest = -1;
    while ((message = rd_kafka_event_message_next(event))) {
        if (records > 0 && (message->err || message->_private != opaque)) {
            run(opaque, records, lowest, RD_KAFKA_RESP_ERR_NO_ERROR, NULL);
            records = 0;
        }
        if (message->err) {
            run(message->_private, 1, -1, message->err, message);
            continue;
        }
        if (records == 0) lowest = -1;
        opaque = message->_private;
        records++;
        if (message->offset >= 0 && (lowest < 0 || message->offset < lowest)) lowest = message->offset;
    }
    if (records > 0) run(opaque, records, lowest, RD_KAFKA_RESP_ERR_NO_ERROR, NULL);
}

/* Macros that Swift does not import. */
static inline int64_t headrace_rd_offset_end(void) { return RD_KAFKA_OFFSET_END; }
static inline int64_t headrace_rd_offset_beginning(void) { return RD_KAFKA_OFFSET_BEGINNING; }
static inline int64_t headrace_rd_offset_invalid(void) { return RD_KAFKA_OFFSET_INVALID; }
#endif
