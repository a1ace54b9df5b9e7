// Nobody waits for ever, nobody saves up a claim, one client's flood is one client's.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "coordinator/core/fairness.h"

enum { ITEMS = 64 };

static void push_all(fairness *f, fair_client *c, fair_item *items, int count) {
    for (int i = 0; i < count; i++) fairness_push(f, c, &items[i], false);
}

// Serves one: takes the first item away and charges its client.
static fair_client *serve(fairness *f, int tokens) {
    fair_item *item = fairness_first(f);
    assert_non_null(item);
    fair_client *c = item->client;
    fairness_remove(f, item);
    fairness_charge(c, tokens, FAIRNESS_ANSWER_WEIGHT);
    return c;
}

static void test_a_flood_gets_its_half(void **state) {
    (void)state;
    fairness *f = fairness_create();
    fair_client *flood = fairness_enter(f, "flood"), *small = fairness_enter(f, "small");
    fair_item many[ITEMS] = {0}, few[8] = {0};
    push_all(f, flood, many, ITEMS);
    push_all(f, small, few, 8);
    int served = 0;
    for (int i = 0; i < 16; i++) served += serve(f, 10) == small;
    assert_int_equal(served, 8);
    while (fairness_waiting(f)) serve(f, 10);
    fairness_leave(f, flood);
    fairness_leave(f, small);
    fairness_destroy(f);
}

static void test_idleness_saves_nothing(void **state) {
    (void)state;
    fairness *f = fairness_create();
    fair_client *busy = fairness_enter(f, "busy"), *idle = fairness_enter(f, "idle");
    fair_item many[ITEMS] = {0}, late[ITEMS] = {0};
    push_all(f, busy, many, ITEMS);
    for (int i = 0; i < 20; i++) serve(f, 100);
    push_all(f, idle, late, 20); // 20 turns behind, and yet no 20 turns in a row
    int served = 0;
    for (int i = 0; i < 10; i++) served += serve(f, 100) == idle;
    assert_in_range(served, 4, 6);
    while (fairness_waiting(f)) serve(f, 1);
    fairness_leave(f, busy);
    fairness_leave(f, idle);
    fairness_destroy(f);
}

static void test_order_within_a_client(void **state) {
    (void)state;
    fairness *f = fairness_create();
    fair_client *c = fairness_enter(f, "c");
    fair_item items[3] = {0};
    fairness_push(f, c, &items[0], false);
    fairness_push(f, c, &items[1], false);
    fairness_push(f, c, &items[2], true);
    assert_ptr_equal(fairness_first(f), &items[2]);
    fairness_remove(f, &items[2]);
    assert_ptr_equal(fairness_first(f), &items[0]);
    fairness_remove(f, &items[1]);
    fairness_remove(f, &items[1]); // does not wait: nothing happens
    fairness_remove(f, &items[0]);
    assert_null(fairness_first(f));
    fairness_leave(f, c);
    fairness_destroy(f);
}

// Many clients, charged as they wait: always the least charged one's turn, of equals the one that
// has waited longest.
static void test_the_least_charged_of_many(void **state) {
    (void)state;
    enum { CLIENTS = 300 };
    fairness *f = fairness_create();
    static fair_client *clients[CLIENTS];
    static fair_item items[CLIENTS];
    int64_t charged[CLIENTS] = {0};
    char name[32];
    uint32_t random = 1;
    for (int i = 0; i < CLIENTS; i++) {
        snprintf(name, sizeof name, "client %d", i);
        clients[i] = fairness_enter(f, name);
        fairness_push(f, clients[i], &items[i], false);
    }
    for (int left = CLIENTS; left > 0; left--) {
        for (int k = 0; k < 20; k++) {
            random = random * 1664525 + 1013904223;
            int i = (int)(random >> 8) % CLIENTS;
            fairness_charge(clients[i], 1 + (random >> 28), 1);
            charged[i] += 1 + (random >> 28);
        }
        int least = -1;
        for (int i = 0; i < CLIENTS; i++)
            if (items[i].client && (least < 0 || charged[i] < charged[least])) least = i;
        assert_ptr_equal(fairness_first(f), &items[least]);
        fairness_remove(f, &items[left % 3 ? least : (int)(random >> 8) % CLIENTS]);
        left = fairness_waiting(f) + 1;
    }
    assert_null(fairness_first(f));
    for (int i = 0; i < CLIENTS; i++) fairness_leave(f, clients[i]);
    fairness_destroy(f);
}

static void test_the_table_is_bounded(void **state) {
    (void)state;
    fairness *f = fairness_create();
    char name[32];
    for (int i = 0; i < 3 * FAIRNESS_IDLE_MAX; i++) { // ASan would see a use of a forgotten one
        snprintf(name, sizeof name, "client %d", i);
        fairness_leave(f, fairness_enter(f, name));
    }
    fair_client *c = fairness_enter(f, "client 0");
    assert_non_null(c);
    fairness_leave(f, c);
    fairness_destroy(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flood_gets_its_half),
        cmocka_unit_test(test_idleness_saves_nothing),
        cmocka_unit_test(test_order_within_a_client),
        cmocka_unit_test(test_the_least_charged_of_many),
        cmocka_unit_test(test_the_table_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
