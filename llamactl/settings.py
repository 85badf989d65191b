"""Django settings, assigned from AppConfig, which defines what operators configure."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

import dj_database_url

from instances.backends.registry import config_sections
from llamactl.admin.theme import THEME
from llamactl.config import ConfigError, load
from llamactl.config.places import check_places
from llamactl.console.sidebar import SIDEBAR
from llamactl.core.broker_url import BrokerError, broker_urls
from llamactl.core.secret_files import read_or_create_secret
from llamactl.version import VERSION

BASE_DIR = Path(__file__).resolve().parent.parent

# All files that our processes create, such as the database's, are for their owner alone, even in a
# data directory that is open to other users.
os.umask(0o077)

try:
    LLAMACTL = load(backends=config_sections())
    check_places(LLAMACTL)
    SECRET_KEY = read_or_create_secret(
        LLAMACTL.data_dir / "secret_key", lambda: secrets.token_urlsafe(50)
    )
    BROKER = broker_urls(LLAMACTL)
except (ConfigError, BrokerError, OSError, ValueError) as error:
    # One line with the error instead of a traceback, for every program that loads the settings.
    if isinstance(error, OSError):  # such as a full disk; check_places has found all else
        sys.stderr.write(f"data_dir: {error.filename}: {error.strerror or error}\n")
    else:
        sys.stderr.write(f"{error}\n")
    raise SystemExit(2) from None

DEBUG = False
# No security decision here depends on the Host header, and a machine has many names.
ALLOWED_HOSTS = ["*"]

INSTALLED_APPS = [
    # daphne serves runserver alone, and takes 20 MB of a process (Twisted, cryptography).
    *(["daphne"] if sys.argv[1:2] == ["runserver"] else []),
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "llamactl",
    "nodes",
    "instances",
    "keys",
    "proxy",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "llamactl.static_files.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "llamactl.urls"
ASGI_APPLICATION = "llamactl.asgi.application"
WSGI_APPLICATION = "llamactl.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "llamactl.console.live.page.banner",
            ],
        },
    },
]

FORM_RENDERER = "llamactl.admin.form_renderer.NarrowRenderer"

DATABASES: dict[str, Any]
if LLAMACTL.database.url is not None:
    DATABASES = {"default": dj_database_url.parse(LLAMACTL.database.url.get_secret_value())}
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": LLAMACTL.database.path,
            "OPTIONS": {
                # A read that becomes a write fails at once under DEFERRED, in spite of the
                # timeout; IMMEDIATE waits.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": (
                    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;"
                ),
            },
        }
    }
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # unfold and rest_framework import psycopg where it is installed: 9 MB and 0.15 s of CPU a
    # process. ``None`` makes the import an ImportError (docs.python.org, "The module cache").
    sys.modules.setdefault("psycopg", None)  # type: ignore[arg-type]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CELERY_BROKER_URL = BROKER.celery
# A wake-up that can't be sent is dropped at once: the node's periodic tick replaces it.
# The socket timeouts let a worker end while the broker hangs.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
}
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Redirected, print() of a library would become one log record a word.
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A worker supervises its backends without a broker, for any length of time.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# A broker that refuses writes (a full disk or memory, a failover) is as good as away.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
# Of no effect on our tasks, which are acknowledged early; without it, Celery warns at each loss.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [BROKER.channels]},
    }
}

# Behind a reverse proxy (server.public_url): links, redirects and cookies of its path and scheme.
# Its Host is foreign, so that a form's Origin is compared with the public one.
FORCE_SCRIPT_NAME = LLAMACTL.server.public_prefix or None
CSRF_TRUSTED_ORIGINS = [LLAMACTL.server.public_origin] if LLAMACTL.server.public_url else []
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = f"{LLAMACTL.server.public_prefix}/"
# Any other request by https gets its cookies from middleware.secure_cookies.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LLAMACTL.server.is_public_by_https

STATIC_URL = f"{LLAMACTL.server.public_prefix}/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Without collectstatic: whitenoise serves the files from the apps' folders.
WHITENOISE_USE_FINDERS = True

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

SESSION_COOKIE_NAME = "llamactl_session"
CSRF_COOKIE_NAME = "llamactl_csrf"
CSRF_FAILURE_VIEW = "llamactl.api.error_pages.csrf_failure"
SESSION_COOKIE_HTTPONLY = True
# Cookies know no ports: a page on the backends' port could read the token. In the session it would
# cost a row of the database for each visitor of the login page.
CSRF_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "SAMEORIGIN"
AUTHENTICATION_BACKENDS = ["llamactl.admin.login.backend.LimitedBackend"]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

UNFOLD = {
    **THEME,
    "SIDEBAR": SIDEBAR,
    "LOGIN": {"form": "llamactl.admin.login.forms.LoginForm"},
    "DASHBOARD_CALLBACK": "llamactl.console.dashboard.add_dashboard",
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["keys.authentication.ManagementKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["keys.permissions.HasManagementKey"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["llamactl.api.errors.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "llamactl.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "llamactl",
    "VERSION": VERSION,
    "LICENSE": {"name": "MIT License", "url": "https://opensource.org/license/mit/"},
    "OAS_VERSION": "3.1.0",
    "SERVERS": [{"url": LLAMACTL.server.public_url}] if LLAMACTL.server.public_url else [],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "llamactl.openapi.document.complete",
    ],
    "ENUM_SUFFIX": "",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    # The order of the routes and descriptions is the order of use.
    "SORT_OPERATIONS": False,
    "SORT_OPERATION_PARAMETERS": False,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {
        "deepLinking": True,
        "persistAuthorization": False,  # a page of the same origin could read the key
        "tryItOutEnabled": True,
        "displayRequestDuration": True,
        "filter": True,
        "docExpansion": "list",
        "defaultModelsExpandDepth": 0,
        "defaultModelExpandDepth": 3,
    },
}


LOGGERS_OF_LASTING_FAILURES = (
    "celery.worker.consumer.consumer",
    "instances.supervisor.state.store",
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "llamactl.logging.LineFormatter"}},
    "filters": {
        name: {"()": "llamactl.logging.RepetitionFilter"} for name in LOGGERS_OF_LASTING_FAILURES
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "uvicorn.access": {"level": "WARNING"},
        "celery": {"level": "WARNING"},
        **{name: {"filters": [name]} for name in LOGGERS_OF_LASTING_FAILURES},
    },
}
