/* call_soon, call_later and their like, and the creation of futures and tasks: what every asyncio
 * program does all the time. */
#include "loop_internal.h"

#include <math.h>

/* The keyword arguments that a scheduling method knows. */
struct call_keywords {
  const char *method;
  const char *first; /* "delay" or "when", or NULL */
};

/* What a call gives: arguments in their order, keywords put in their places. */
struct call_args {
  PyObject *first;
  PyObject *callback;
  PyObject *context;
  PyObject *const *args;
  Py_ssize_t nargs;
};

static int
missing_argument(const struct call_keywords *keywords, const char *name)
{
  PyErr_Format(PyExc_TypeError, "%s() missing required positional argument: '%s'", keywords->method,
               name);
  return -1;
}

/* Puts one keyword argument other than an interned "context" in its place. */
static int
take_keyword(const struct call_keywords *keywords, struct call_args *call, PyObject *name,
             PyObject *value)
{
  PyObject **place = NULL;

  if (PyUnicode_CompareWithASCIIString(name, "context") == 0)
    place = &call->context;
  else if (PyUnicode_CompareWithASCIIString(name, "callback") == 0)
    place = &call->callback;
  else if (keywords->first && PyUnicode_CompareWithASCIIString(name, keywords->first) == 0)
    place = &call->first;
  if (place == NULL) {
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", keywords->method,
                 name);
    return -1;
  }
  if (*place != NULL) {
    PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", keywords->method,
                 name);
    return -1;
  }
  *place = value;
  return 0;
}

static int
check_context(const struct call_keywords *keywords, PyObject *context)
{
  if (context == NULL || context == Py_None || PyContext_CheckExact(context))
    return 0;
  PyErr_Format(PyExc_TypeError, "%s() needs a contextvars.Context as context, not %.200s",
               keywords->method, Py_TYPE(context)->tp_name);
  return -1;
}

static int
parse_call(native_loop *loop, const struct call_keywords *keywords, PyObject *const *args,
           Py_ssize_t nargs, PyObject *kwnames, struct call_args *call)
{
  Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
  PyObject *const *values = args + nargs;

  *call = (struct call_args){0};
  if (keywords->first != NULL && nargs > 0) {
    call->first = *args++;
    nargs--;
  }
  if (nargs > 0) {
    call->callback = *args++;
    nargs--;
  }
  call->args = args;
  call->nargs = nargs;
  for (Py_ssize_t i = 0; i < nkw; i++) {
    PyObject *name = PyTuple_GET_ITEM(kwnames, i);

    if (name == loop->state->str_context && call->context == NULL)
      call->context = values[i];
    else if (take_keyword(keywords, call, name, values[i]) < 0)
      return -1;
  }
  if (keywords->first != NULL && call->first == NULL)
    return missing_argument(keywords, keywords->first);
  if (call->callback == NULL)
    return missing_argument(keywords, "callback");
  return check_context(keywords, call->context);
}

/* What every scheduling method checks before it makes a handle. */
static inline int
check_call(native_loop *loop, const char *method, PyObject *callback, bool check_thread)
{
  if (loop_check_closed(loop) < 0)
    return -1;
  return loop->debug ? debug_check_call(loop, callback, method, check_thread) : 0;
}

static handle *
schedule(native_loop *loop, const struct call_keywords *keywords, const struct call_args *call,
         bool check_thread)
{
  handle *h;

  if (check_call(loop, keywords->method, call->callback, check_thread) < 0)
    return NULL;
  h = handle_new(loop, call->callback, call->args, call->nargs, call->context);
  if (h != NULL && ready_push(&loop->ready, (PyObject *)h) < 0)
    Py_CLEAR(h);
  return h;
}

/* True when the keyword names of a call are "context" alone.  The tuple in which _asyncio has them
 * holds a string that is not interned, so the tuple is remembered. */
static inline bool
is_context_alone(loop_state *state, PyObject *kwnames)
{
  if (kwnames == state->context_names)
    return true;
  if (PyTuple_GET_SIZE(kwnames) != 1)
    return false;
  if (PyTuple_GET_ITEM(kwnames, 0) == state->str_context)
    return true;
  if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "context") != 0)
    return false;
  Py_XSETREF(state->context_names, Py_NewRef(kwnames));
  return true;
}

/* Parses callback, *args and nothing but "context": how asyncio itself always calls. */
static inline bool
parse_common(native_loop *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             struct call_args *call)
{
  call->context = NULL;
  if (nargs == 0)
    return false;
  if (kwnames != NULL) {
    if (!is_context_alone(loop->state, kwnames) || !PyContext_CheckExact(args[nargs]))
      return false;
    call->context = args[nargs];
  }
  call->callback = args[0];
  call->args = args + 1;
  call->nargs = nargs - 1;
  return true;
}

PyObject *
loop_call_soon(native_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
  static const struct call_keywords keywords = {"call_soon", NULL};
  struct call_args call;

  if (!parse_common(self, args, nargs, kwnames, &call) &&
      parse_call(self, &keywords, args, nargs, kwnames, &call) < 0)
    return NULL;
  return (PyObject *)schedule(self, &keywords, &call, true);
}

/* Any Python thread.  The GIL guards the ready ring, so the handle goes straight there; the loop
 * announces its sleep with the GIL held, so an awake loop will see it. */
PyObject *
loop_call_soon_threadsafe(native_loop *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
  static const struct call_keywords keywords = {"call_soon_threadsafe", NULL};
  struct call_args call;
  handle *h;

  if (!parse_common(self, args, nargs, kwnames, &call) &&
      parse_call(self, &keywords, args, nargs, kwnames, &call) < 0)
    return NULL;
  h = schedule(self, &keywords, &call, false);
  if (h != NULL)
    pending_wake_if_asleep(self->core);
  return (PyObject *)h;
}

static PyObject *
schedule_at(native_loop *self, const struct call_keywords *keywords, const struct call_args *call,
            double when)
{
  timer_handle *timer;

  if (isnan(when)) {
    PyErr_Format(PyExc_ValueError, "Invalid %s: NaN (not a number)", keywords->first);
    return NULL;
  }
  /* asyncio's call_later is a call_at too and says so. */
  if (check_call(self, "call_at", call->callback, true) < 0)
    return NULL;
  timer = timer_handle_new(self, when, call->callback, call->args, call->nargs, call->context);
  if (timer != NULL && timers_insert(&self->timers, timer, loop_deadline(when)) < 0)
    Py_CLEAR(timer);
  return (PyObject *)timer;
}

/* The seconds of a delay or a time; -1.0 with an exception set. */
static double
seconds_of(PyObject *number, const char *none_message)
{
  if (PyFloat_CheckExact(number))
    return PyFloat_AS_DOUBLE(number);
  if (number == Py_None) {
    PyErr_SetString(PyExc_TypeError, none_message);
    return -1.0;
  }
  return PyFloat_AsDouble(number);
}

/* call_at of a subclass, with what call_later was given. */
static PyObject *
foreign_call_at(native_loop *self, const struct call_args *call, double when)
{
  PyObject *method = PyObject_GetAttr((PyObject *)self, self->state->str_call_at);
  PyObject *args = PyTuple_New(2 + call->nargs);
  PyObject *keywords = NULL, *number = PyFloat_FromDouble(when), *result = NULL;

  if (method != NULL && args != NULL && number != NULL) {
    PyTuple_SET_ITEM(args, 0, Py_NewRef(number));
    PyTuple_SET_ITEM(args, 1, Py_NewRef(call->callback));
    for (Py_ssize_t i = 0; i < call->nargs; i++)
      PyTuple_SET_ITEM(args, 2 + i, Py_NewRef(call->args[i]));
    keywords =
        Py_BuildValue("{OO}", self->state->str_context, call->context ? call->context : Py_None);
  }
  if (keywords != NULL)
    result = PyObject_Call(method, args, keywords);
  Py_XDECREF(keywords);
  Py_XDECREF(number);
  Py_XDECREF(args);
  Py_XDECREF(method);
  return result;
}

/* What loop.time() gives; -1.0 with an exception set. */
static double
loop_time_seconds(native_loop *self)
{
  PyObject *number;
  double seconds;

  if (!self->foreign_time)
    return (double)loop_now() / (double)NS_PER_SECOND;
  number = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_time);
  seconds = number == NULL ? -1.0 : PyFloat_AsDouble(number);
  Py_XDECREF(number);
  return seconds;
}

int64_t
loop_deadline(double when)
{
  double ns = when * (double)NS_PER_SECOND;
  int64_t whole;

  if (ns >= (double)DEADLINE_NEVER)
    return DEADLINE_NEVER;
  if (ns <= 0.0)
    return 0;
  whole = (int64_t)ns;
  return whole + ((double)whole < ns);
}

int64_t
loop_clock(native_loop *loop)
{
  double seconds;

  if (!loop->foreign_time)
    return loop_now();
  seconds = loop_time_seconds(loop);
  return seconds == -1.0 && PyErr_Occurred() ? -1 : loop_deadline(seconds);
}

PyObject *
loop_call_later(native_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
  static const struct call_keywords keywords = {"call_later", "delay"};
  struct call_args call;
  double delay, now;

  if (nargs > 1 && parse_common(self, args + 1, nargs - 1, kwnames, &call))
    call.first = args[0];
  else if (parse_call(self, &keywords, args, nargs, kwnames, &call) < 0)
    return NULL;
  delay = seconds_of(call.first, "delay must not be None");
  if (delay == -1.0 && PyErr_Occurred())
    return NULL;
  now = loop_time_seconds(self);
  if (now == -1.0 && PyErr_Occurred())
    return NULL;
  if (self->foreign_call_at)
    return foreign_call_at(self, &call, now + delay);
  return schedule_at(self, &keywords, &call, now + delay);
}

PyObject *
loop_call_at(native_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
  static const struct call_keywords keywords = {"call_at", "when"};
  struct call_args call;
  double when;

  if (parse_call(self, &keywords, args, nargs, kwnames, &call) < 0)
    return NULL;
  when = seconds_of(call.first, "when cannot be None");
  if (when == -1.0 && PyErr_Occurred())
    return NULL;
  return schedule_at(self, &keywords, &call, when);
}

/* --- futures and tasks ----------------------------------------------------------------------- */

/* The keywords {"loop": self}, borrowed.  asyncio's types are called with a dict in the end; one
 * that is kept spares making it for every future and task. */
static PyObject *
loop_keyword(native_loop *self)
{
  PyObject *keywords = self->loop_keyword;

  if (keywords != NULL)
    return keywords;
  keywords = PyDict_New();
  if (keywords != NULL && PyDict_SetItem(keywords, self->state->str_loop, (PyObject *)self) < 0)
    Py_CLEAR(keywords);
  self->loop_keyword = keywords;
  return keywords;
}

/* type(*args, loop=self); on a closed loop the dict goes at once, lest it keep the loop alive. */
static PyObject *
call_with_loop(native_loop *self, PyObject *type, PyObject *args)
{
  PyObject *keywords = Py_XNewRef(loop_keyword(self));
  PyObject *result = keywords == NULL ? NULL : PyObject_Call(type, args, keywords);

  Py_XDECREF(keywords);
  if (self->closed)
    Py_CLEAR(self->loop_keyword);
  return result;
}

PyObject *
loop_create_future(native_loop *self, PyObject *Py_UNUSED(ignored))
{
  return call_with_loop(self, self->state->future_type, self->state->empty_tuple);
}

/* The base class's create_task, for task factories and keywords that only it knows. */
static PyObject *
create_task_inherited(native_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
  Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
  PyObject **stack = PyMem_Malloc((size_t)(1 + nargs + nkw) * sizeof(*stack));
  PyObject *result;

  if (stack == NULL)
    return PyErr_NoMemory();
  stack[0] = (PyObject *)self;
  for (Py_ssize_t i = 0; i < nargs + nkw; i++)
    stack[1 + i] = args[i];
  result = PyObject_Vectorcall(self->state->create_task, stack, (size_t)nargs + 1, kwnames);
  PyMem_Free(stack);
  return result;
}

/* True when the call is create_task(coro, name=, context=), and stores what it gives. */
static bool
plain_create_task(native_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  PyObject **name, PyObject **context)
{
  Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);

  if (self->task_factory != NULL || self->debug || nargs != 1)
    return false;
  for (Py_ssize_t i = 0; i < nkw; i++) {
    PyObject *keyword = PyTuple_GET_ITEM(kwnames, i);

    if (keyword == self->state->str_context)
      *context = args[nargs + i];
    else if (keyword == self->state->str_name)
      *name = args[nargs + i];
    else
      return false;
  }
  return true;
}

/* Task(coro, loop=self, name=name, context=context) */
static PyObject *
named_task(native_loop *self, PyObject *args, PyObject *name, PyObject *context)
{
  loop_state *state = self->state;
  PyObject *keywords = PyDict_New();
  PyObject *task = NULL;

  if (keywords != NULL && PyDict_SetItem(keywords, state->str_loop, (PyObject *)self) == 0 &&
      PyDict_SetItem(keywords, state->str_name, name) == 0 &&
      PyDict_SetItem(keywords, state->str_context, context) == 0)
    task = PyObject_Call(state->task_type, args, keywords);
  Py_XDECREF(keywords);
  return task;
}

/* The tuple (argument,): the one that was used last time, as asyncio's types do not keep it. */
static PyObject *
task_args_take(native_loop *self, PyObject *argument)
{
  PyObject *args = self->task_args;

  self->task_args = NULL;
  if (args == NULL)
    args = PyTuple_New(1);
  if (args != NULL)
    PyTuple_SET_ITEM(args, 0, Py_NewRef(argument));
  return args;
}

static void
task_args_return(native_loop *self, PyObject *args)
{
  PyObject *argument;

  if (Py_REFCNT(args) != 1 || self->task_args != NULL || self->closed) {
    Py_DECREF(args);
    return;
  }
  argument = PyTuple_GET_ITEM(args, 0);
  PyTuple_SET_ITEM(args, 0, NULL);
  self->task_args = args;
  Py_DECREF(argument);
}

PyObject *
loop_create_task(native_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
  PyObject *name = Py_None, *context = Py_None;
  PyObject *args_tuple, *task;

  if (!plain_create_task(self, args, nargs, kwnames, &name, &context))
    return create_task_inherited(self, args, nargs, kwnames);
  if (loop_check_closed(self) < 0)
    return NULL;
  args_tuple = task_args_take(self, args[0]);
  if (args_tuple == NULL)
    return NULL;
  if (name == Py_None && context == Py_None)
    task = call_with_loop(self, self->state->task_type, args_tuple);
  else
    task = named_task(self, args_tuple, name, context);
  task_args_return(self, args_tuple);
  return task;
}
